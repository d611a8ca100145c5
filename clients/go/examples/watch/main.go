// Command watch prints every message of a mailing as it ends, each once, across restarts of the service.
//
//	go run ./examples/watch localhost:50051 1
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"

	"example.com/mailing/clients/go"
	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := watch(ctx, os.Args[1], os.Args[2]); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func watch(ctx context.Context, address, mailingID string) error {
	client, err := mailing.Connect(address, mailing.WithToken(os.Getenv("MAILING_TOKEN")))
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := strconv.ParseInt(mailingID, 10, 64)
	if err != nil {
		return err
	}
	messages := client.WatchMessages(&mailingv1.WatchMessagesRequest{MailingId: id, FromStart: true})
	for change, err := range messages.Changes(ctx) {
		if err != nil {
			return err
		}
		fmt.Println(change.GetMessageId(), change.GetClientId(), change.GetStatus())
	}
	return nil
}
