// Reads a server's pages as nats-top and exporters written in Go do: into the structs of the server's own package.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sort"

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
		fmt.Println("connz", connz.NumConns, "client", client.Cid, "subs", client.NumSubs, "in_msgs", client.InMsgs,
			"out_msgs", client.OutMsgs, "list", client.Subs)
	}

	var subsz server.Subsz
	read("/subsz?subs=1", &subsz)
	fmt.Println("subsz", subsz.NumSubs, "subscriptions", len(subsz.Subs), "listed")

	var routez server.Routez
	read("/routez", &routez)
	fmt.Println("routez", routez.NumRoutes)
}
