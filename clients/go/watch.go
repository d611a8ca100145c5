package mailing

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// WatchMailing yields the mailing as it is now and after each change, until its final state. Breaking
// out of the loop or cancelling ctx ends it. minInterval is the minimum time between two states: 0 means 250
// ms. It reconnects by itself; an error that waiting does not help is yielded at last.
func (c *Client) WatchMailing(ctx context.Context, mailingID int64, minInterval time.Duration) iter.Seq2[*mailingv1.Mailing, error] {
	request := &mailingv1.WatchMailingRequest{MailingId: mailingID}
	if minInterval > 0 {
		request.MinInterval = durationpb.New(minInterval)
	}
	return func(yield func(*mailingv1.Mailing, error) bool) {
		open := func(ctx context.Context) (grpc.ServerStreamingClient[mailingv1.WatchMailingResponse], error) {
			return c.Delivery.WatchMailing(ctx, request)
		}
		err := reconnecting(ctx, open, never, func(response *mailingv1.WatchMailingResponse) (bool, error) {
			return yield(response.GetMailing(), nil), nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// MessageWatch is a watch of messages, which reconnects by itself.
type MessageWatch struct {
	client  *Client
	request *mailingv1.WatchMessagesRequest
	token   string
	relist  bool
	repeats repeats
}

// WatchMessages returns a watch of what request asks for: from its resume token on, else from the
// oldest change that is kept, or from now.
func (c *Client) WatchMessages(request *mailingv1.WatchMessagesRequest) *MessageWatch {
	return &MessageWatch{client: c, request: request, token: request.GetResumeToken()}
}

// ResumeToken returns the position after the last response whose changes were all yielded. Another
// watch of the same query continues there, on any replica.
func (w *MessageWatch) ResumeToken() string { return w.token }

// Changes yields each change once, without end, and an error at last if waiting does not help. Breaking out of the
// loop or cancelling ctx ends it.
//
// When the position is no longer kept (RESUME_TOKEN_EXPIRED) and the watch is of one mailing, the
// present state of every message is read and yielded as a change, and the watch goes on from there.
func (w *MessageWatch) Changes(ctx context.Context) iter.Seq2[*mailingv1.MessageChange, error] {
	return func(yield func(*mailingv1.MessageChange, error) bool) {
		err := reconnecting(ctx, w.open, w.recover, func(response *mailingv1.WatchMessagesResponse) (bool, error) {
			return w.receive(ctx, response, yield)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

func (w *MessageWatch) open(ctx context.Context) (grpc.ServerStreamingClient[mailingv1.WatchMessagesResponse], error) {
	w.repeats.resume()
	w.request = &mailingv1.WatchMessagesRequest{
		MailingId:       w.request.GetMailingId(),
		Statuses:        w.request.GetStatuses(),
		FromStart:       w.request.GetFromStart() && !w.relist,
		IncludeReceipts: w.request.GetIncludeReceipts(),
		ResumeToken:     w.token,
	}
	return w.client.Delivery.WatchMessages(ctx, w.request)
}

// recover reports whether the watch can go on after a final error: by reading everything again.
func (w *MessageWatch) recover(failure *Error) bool {
	if failure.Reason != "RESUME_TOKEN_EXPIRED" || w.request.GetMailingId() == 0 {
		return false
	}
	w.token, w.relist, w.repeats = "", true, repeats{}
	return true
}

func (w *MessageWatch) receive(ctx context.Context, response *mailingv1.WatchMessagesResponse, yield func(*mailingv1.MessageChange, error) bool) (bool, error) {
	if w.relist {
		// The stream is open, so nothing is missed between the list and its first change.
		if more, err := w.list(ctx, yield); !more || err != nil {
			return more, err
		}
		w.relist = false
	}
	for _, change := range w.repeats.fresh(response) {
		if !yield(change, nil) {
			return false, nil
		}
	}
	w.token = response.GetResumeToken()
	return true, nil
}

func (w *MessageWatch) list(ctx context.Context, yield func(*mailingv1.MessageChange, error) bool) (bool, error) {
	request := &mailingv1.ListMessagesRequest{
		MailingId: w.request.GetMailingId(), Statuses: w.request.GetStatuses(), PageSize: 1000,
	}
	for {
		page, err := w.client.Messages.ListMessages(ctx, request)
		if err != nil {
			return false, err
		}
		for _, message := range page.GetMessages() {
			if !yield(changeOf(message), nil) {
				return false, nil
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return true, nil
		}
	}
}

func changeOf(message *mailingv1.Message) *mailingv1.MessageChange {
	change := &mailingv1.MessageChange{
		MessageId: message.GetId(),
		MailingId: message.GetMailingId(),
		ClientId:  message.GetClientId(),
		Status:    message.GetStatus(),
		Reason:    message.GetReason(),
		Time:      message.GetSettleTime(),
	}
	if change.Time == nil {
		change.Time = message.GetCreateTime()
	}
	return change
}

type changeKey struct {
	message         int64
	status, receipt int32
	seconds         int64
	nanos           int32
}

func keyOf(change *mailingv1.MessageChange) changeKey {
	return changeKey{
		change.GetMessageId(), int32(change.GetStatus()), int32(change.GetReceipt()),
		change.GetTime().GetSeconds(), change.GetTime().GetNanos(),
	}
}

// repeats drops what a resumed stream repeats: the changes that came with the token it resumes from.
// The service may send one batch in several responses; only the token of the last one is after all of it.
type repeats struct {
	token string
	same  []changeKey
	seen  map[changeKey]bool
}

func (r *repeats) fresh(response *mailingv1.WatchMessagesResponse) []*mailingv1.MessageChange {
	if response.GetResumeToken() != r.token {
		r.token, r.same = response.GetResumeToken(), nil
	}
	var found []*mailingv1.MessageChange
	for _, change := range response.GetChanges() {
		key := keyOf(change)
		r.same = append(r.same, key)
		if !r.seen[key] {
			found = append(found, change)
		}
	}
	if len(found) > 0 && len(found) == len(response.GetChanges()) {
		r.seen = nil // everything that could be repeated is past
	}
	return found
}

func (r *repeats) resume() {
	if r.seen == nil {
		r.seen = make(map[changeKey]bool)
	}
	for _, key := range r.same {
		r.seen[key] = true
	}
}

func never(*Error) bool { return false }

// reconnecting hands the responses of a stream to receive, until that wants no more or the stream ends.
// After the first response it opens the stream again whenever it breaks.
func reconnecting[T any](
	ctx context.Context,
	open func(context.Context) (grpc.ServerStreamingClient[T], error),
	recover func(*Error) bool,
	receive func(*T) (bool, error),
) error {
	answered, refused, wait := false, false, firstPause
	for {
		err := readStream(ctx, open, func(response *T) (bool, error) {
			answered, refused, wait = true, false, firstPause
			return receive(response)
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		failure := asError(err)
		if recover(failure) {
			continue
		}
		// A token was revoked or has expired: once, the source may have another one by now.
		renewable := failure.Code == codes.Unauthenticated && !refused
		if !answered || !renewable && !failure.passes() {
			return failure
		}
		refused = refused || renewable
		if !pause(ctx, max(failure.RetryDelay, jittered(wait))) {
			return failure
		}
		wait = min(2*wait, longestPause)
	}
}

func readStream[T any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[T], error), receive func(*T) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx)
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if more, err := receive(response); !more || err != nil {
			return err
		}
	}
}

// passes reports whether a broken stream can be opened again later.
func (e *Error) passes() bool {
	return e.Code == codes.Unavailable || e.Transport() || e.RetryDelay > 0 ||
		e.Reason == "READER_TOO_SLOW" || e.Reason == "SHUTTING_DOWN"
}

// jittered returns between half of a pause and all of it: many clients must not return at once.
func jittered(wait time.Duration) time.Duration {
	return wait/2 + rand.N(wait/2)
}
