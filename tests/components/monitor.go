// Reads a server's pages as nats-top and prometheus-nats-exporter do: into the structs of the server's own package, or into structs with the
// same fields. The exporter also parses times and durations, and ends if a field has another type.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sort"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func read(path string, into interface{}) {
	answer, err := http.Get(os.Args[1] + path)
	if err == nil {
		defer answer.Body.Close()
		err = json.NewDecoder(answer.Body).Decode(into)
	}
	if err != nil {
		fmt.Println("error", path, err)
		os.Exit(1)
	}
}

// Ends with an error unless each text is a duration. (The uptime is in days from the second day on, as in nats-server.)
func durations(of string, texts ...string) {
	for _, text := range texts {
		if _, err := time.ParseDuration(text); err != nil && text != "" {
			fmt.Println("error", of, err)
			os.Exit(1)
		}
	}
}

func main() {
	var varz server.Varz
	read("/varz", &varz)
	fmt.Println("varz version", varz.Version, "connections", varz.Connections, "in_msgs", varz.InMsgs,
		"out_msgs", varz.OutMsgs, "in_bytes", varz.InBytes, "out_bytes", varz.OutBytes,
		"subscriptions", varz.Subscriptions)
	if varz.Start.IsZero() || varz.Now.Before(varz.Start) || varz.Uptime == "" || varz.Mem == 0 {
		fmt.Println("error: times or memory are missing", varz)
		os.Exit(1)
	}

	var connz server.Connz
	read("/connz?subs=1&limit=1024&sort=subs", &connz)
	for _, client := range connz.Conns {
		sort.Strings(client.Subs)
		durations("connz", client.RTT, client.Uptime, client.Idle)
		if client.Start.IsZero() || client.LastActivity.Before(client.Start) || client.IP == "" || client.Port == 0 {
			fmt.Println("error: times or the address are missing", client)
			os.Exit(1)
		}
		fmt.Println("connz", connz.NumConns, "client", client.Cid, "subs", client.NumSubs, "in_msgs", client.InMsgs,
			"out_msgs", client.OutMsgs, "list", client.Subs)
	}

	var subsz server.Subsz
	read("/subsz?subs=1", &subsz)
	fmt.Println("subsz", subsz.NumSubs, "subscriptions", len(subsz.Subs), "listed")

	var routez server.Routez
	read("/routez", &routez)
	fmt.Println("routez", routez.NumRoutes)
	for _, route := range routez.Routes {
		durations("routez", route.RTT, route.Uptime, route.Idle)
		fmt.Println("route", route.Rid, "from", route.RemoteID != "", "in_msgs", route.InMsgs, "out_msgs", route.OutMsgs,
			"in_bytes", route.InBytes, "out_bytes", route.OutBytes, "subs", route.NumSubs)
	}

	var accounts server.AccountStatz
	read("/accstatz?unused=1", &accounts)
	for _, account := range accounts.Accounts {
		fmt.Println("accstatz", account.Account, "conns", account.Conns, "received", account.Received.Msgs,
			account.Received.Bytes, "sent", account.Sent.Msgs, account.Sent.Bytes, "slow", account.SlowConsumers)
	}

	var health server.HealthStatus
	read("/healthz", &health)
	fmt.Println("healthz", health.Status, health.Error)
}
