// The Go component around the old github.com/nats-io/nats.go that Debian packages.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

var (
	connection    *nats.Conn
	subscriptions = map[string]*nats.Subscription{}
	printing      sync.Mutex
)

func say(words ...interface{}) {
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(words...)
}

func check(err error) {
	if err != nil {
		say("error", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func credentials(words []string) (options []nats.Option) {
	values := map[string]string{}
	for _, word := range words {
		if name, value, found := strings.Cut(word, "="); found {
			values[name] = value
		}
	}
	if values["ca"] != "" {
		options = append(options, nats.RootCAs(values["ca"]))
	}
	if values["cert"] != "" {
		options = append(options, nats.ClientCert(values["cert"], values["key"]))
	}
	if values["seed"] != "" {
		option, err := nats.NkeyOptionFromSeed(values["seed"])
		check(err)
		options = append(options, option)
	}
	if values["creds"] != "" {
		options = append(options, nats.UserCredentials(values["creds"]))
	}
	return options
}

func connect(url string, words []string) {
	var err error
	connection, err = nats.Connect(url, append(credentials(words),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { say("disconnected") }),
		nats.ReconnectHandler(func(*nats.Conn) { say("reconnected") }),
		nats.ClosedHandler(func(*nats.Conn) { say("closed") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { check(err) }))...)
	if err != nil {
		check(err)
		return
	}
	say("connected")
}

func subscribe(name, subject, queue string) {
	handle := func(m *nats.Msg) { say("msg", name, m.Subject, string(m.Data)) }
	subscription, err := connection.QueueSubscribe(subject, queue, handle)
	check(err)
	subscriptions[name] = subscription
}

func unsubscribe(name, most string) {
	if most == "" {
		check(subscriptions[name].Unsubscribe())
		return
	}
	count, err := strconv.Atoi(most)
	check(err)
	check(subscriptions[name].AutoUnsubscribe(count))
}

func request(subject, payload string) {
	reply, err := connection.Request(subject, []byte(payload), 10*time.Second)
	if err != nil {
		check(err)
		return
	}
	say("reply", string(reply.Data))
}

func burst(subject, prefix, countWord, rateWord string) {
	count, err := strconv.Atoi(countWord)
	check(err)
	rate, err := strconv.ParseFloat(rateWord, 64)
	check(err)
	start := time.Now()
	for sent := 0; sent < count; {
		due := int(time.Since(start).Seconds()*rate) + 1
		for ; sent < due && sent < count; sent++ {
			check(connection.Publish(subject, []byte(prefix+strconv.Itoa(sent+1))))
		}
		time.Sleep(2 * time.Millisecond)
	}
	say("burst-done", count)
}

func carryOut(words []string) {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch word(0) {
	case "connect":
		connect(word(1), words[2:])
	case "sub":
		subscribe(word(1), word(2), word(3))
	case "unsub":
		unsubscribe(word(1), word(2))
	case "answer":
		_, err := connection.Subscribe(word(1), func(m *nats.Msg) { check(m.Respond(append([]byte(word(2)), m.Data...))) })
		check(err)
	case "pub":
		check(connection.Publish(word(1), []byte(word(2))))
	case "request":
		request(word(1), word(2))
	case "burst":
		go burst(word(1), word(2), word(3), word(4))
	case "flush":
		if err := connection.FlushTimeout(30 * time.Second); err != nil {
			check(err)
			return
		}
		say("flushed")
	case "close":
		connection.Close()
	default:
		say("error unknown command", word(0))
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		carryOut(strings.Fields(lines.Text()))
	}
}
