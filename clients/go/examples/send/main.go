// Command send imports two clients, sends them a mailing and shows its progress to the end.
//
//	go run ./examples/send localhost:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"example.com/mailing/clients/go"
	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

func main() {
	if err := send(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func send(ctx context.Context, address string) error {
	client, err := mailing.Connect(address, mailing.WithToken(os.Getenv("MAILING_TOKEN")))
	if err != nil {
		return err
	}
	defer client.Close()

	window, err := mailing.Window("00:00", "00:00")
	if err != nil {
		return err
	}
	imported, err := client.ImportAll(ctx, []*mailingv1.Client{
		{Phone: "70100000001", Timezone: "Europe/Moscow", Tag: "example", ReceiveWindow: window},
		{Phone: "70100000002", Timezone: "Asia/Omsk", Tag: "example"},
	})
	if err != nil {
		return err
	}
	fmt.Println("new clients:", imported.GetCreated())

	created, err := client.Mailings.CreateMailing(ctx, &mailingv1.CreateMailingRequest{Mailing: &mailingv1.Mailing{
		Text:         "Hello {phone}",
		Filter:       &mailingv1.ClientFilter{Tags: []string{"example"}},
		AudienceMode: mailingv1.Mailing_AUDIENCE_MODE_SNAPSHOT,
	}})
	if err != nil {
		return err
	}
	for state, err := range client.WatchMailing(ctx, created.GetMailing().GetId(), 0) {
		if err != nil {
			return err
		}
		fmt.Println(state.GetState(), state.GetProgress().GetDelivered(), "of", state.GetProgress().GetTotal())
	}
	return nil
}
