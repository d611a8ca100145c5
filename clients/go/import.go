package mailing

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

const (
	importBytes = 1 << 20
	importCount = 500
)

// ImportOptions are the options of an import.
type ImportOptions struct {
	// Request has the update mask and the flags of the import; its clients are ignored.
	Request *mailingv1.ImportClientsRequest
	// Progress is called with the number of clients sent so far, after each message of the stream.
	Progress func(sent int)
}

// ImportClients creates or updates many clients, matched by phone: all of them or none. It reads
// the sequence as fast as the service takes it, so that may be of any length. An error in the sequence ends the import
// and is returned as it is; nothing is stored then.
func (c *Client) ImportClients(ctx context.Context, clients iter.Seq2[*mailingv1.Client, error], options ImportOptions) (*mailingv1.ImportClientsResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the stream is closed, this makes the service forget it
	stream, err := c.Clients.ImportClients(ctx)
	if err != nil {
		return nil, err
	}
	sent := 0
	for request, err := range importRequests(clients, options.Request) {
		if err != nil {
			return nil, err
		}
		if err := stream.Send(request); errors.Is(err, io.EOF) {
			break // the service has refused; the answer says why
		} else if err != nil {
			return nil, err
		}
		sent += len(request.GetClients())
		if options.Progress != nil {
			options.Progress(sent)
		}
	}
	return stream.CloseAndRecv()
}

// ImportAll is ImportClients for clients that are in memory.
func (c *Client) ImportAll(ctx context.Context, clients []*mailingv1.Client) (*mailingv1.ImportClientsResponse, error) {
	each := func(yield func(*mailingv1.Client, error) bool) {
		for _, one := range clients {
			if !yield(one, nil) {
				return
			}
		}
	}
	return c.ImportClients(ctx, each, ImportOptions{})
}

// importRequests cuts clients into messages of at most 1 MiB and 500 clients. The first one has the options.
func importRequests(clients iter.Seq2[*mailingv1.Client, error], options *mailingv1.ImportClientsRequest) iter.Seq2[*mailingv1.ImportClientsRequest, error] {
	return func(yield func(*mailingv1.ImportClientsRequest, error) bool) {
		next := &mailingv1.ImportClientsRequest{
			UpdateMask:   options.GetUpdateMask(),
			ValidateOnly: options.GetValidateOnly(),
			SkipInvalid:  options.GetSkipInvalid(),
		}
		size := proto.Size(next)
		for client, err := range clients {
			if err != nil {
				yield(nil, err)
				return
			}
			more := proto.Size(client) + 8 // with its tag and length
			if len(next.GetClients()) == importCount || len(next.GetClients()) > 0 && size+more > importBytes {
				if !yield(next, nil) {
					return
				}
				next, size = &mailingv1.ImportClientsRequest{}, 0
			}
			next.Clients = append(next.Clients, client)
			size += more
		}
		yield(next, nil)
	}
}
