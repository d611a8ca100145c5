package mailing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FieldViolation is one invalid field: its path in the request, such as "clients[17].timezone", and a
// sentence.
type FieldViolation struct {
	Field       string
	Description string
}

// Error is what a failed call returns. Use errors.As to get it.
type Error struct {
	// Code is gRPC's status code.
	Code codes.Code
	// Reason is a name of mailingv1.ErrorReason without its prefix, such as "PHONE_TAKEN". It is empty
	// when the answer did not come from the service.
	Reason string
	// Message is one sentence.
	Message string
	// Fields has every invalid field of a refused request.
	Fields []FieldViolation
	// Metadata has the facts of the reason.
	Metadata map[string]string
	// RetryDelay is how long the service asks to wait before the call is repeated; 0 when it does not say.
	RetryDelay time.Duration

	status *status.Status
}

func (e *Error) Error() string {
	text := e.Message
	if len(e.Fields) > 0 {
		sentences := make([]string, len(e.Fields))
		for i, one := range e.Fields {
			sentences[i] = one.Field + ": " + one.Description
		}
		text = strings.Join(sentences, "; ")
	}
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return fmt.Sprintf("mailing: %s: %s", e.Code, text)
}

// Transport reports whether the network, a proxy or something else on the way failed and not the
// service: the error has no ErrorInfo and is ABORTED, INTERNAL, UNKNOWN or UNAVAILABLE.
func (e *Error) Transport() bool {
	switch e.Code {
	case codes.Aborted, codes.Internal, codes.Unknown, codes.Unavailable:
		return e.Reason == ""
	default:
		return false
	}
}

// GRPCStatus returns the status as gRPC knows it, so that status.FromError and status.Code work.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// translate returns the same failure with its details; nil for nil.
func translate(err error) *Error {
	if err == nil {
		return nil
	}
	found := status.Convert(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		found = status.FromContextError(err)
	}
	failure := &Error{Code: found.Code(), Message: found.Message(), status: found}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason, failure.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, one := range detail.GetFieldViolations() {
				failure.Fields = append(failure.Fields, FieldViolation{one.GetField(), one.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failure.RetryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	if failure.Transport() {
		failure.Message = explained(failure.Message)
	}
	return failure
}

// hints has what gRPC says of failures on the way, and what that means.
var hints = []struct{ words, meaning string }{
	{"authentication handshake failed", "TLS could not be agreed on: check the authority, the certificate and the name in it"},
	{"connection refused", "no service listens at this address"},
	{"no such host", "the name of the service cannot be resolved"},
	{"produced zero addresses", "the name of the service cannot be resolved"},
	{"error reading server preface", "what answers at this address is no gRPC service, perhaps a web server or one with TLS"},
	{"unexpected HTTP status code", "a proxy or a web server answered in place of the service"},
	{"unexpected content-type", "a proxy or a web server answered in place of the service"},
}

// explained returns what gRPC says of a failure on the way, with a sentence for people before it where there is one.
func explained(message string) string {
	for _, hint := range hints {
		if strings.Contains(message, hint.words) {
			return fmt.Sprintf("%s (%s)", hint.meaning, message)
		}
	}
	return message
}

func translateUnary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return translate(err)
	}
	return nil
}

func translateStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	opened, err := stream(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, translate(err)
	}
	return translatingStream{opened}, nil
}

type translatingStream struct{ grpc.ClientStream }

func (s translatingStream) SendMsg(message any) error {
	return translated(s.ClientStream.SendMsg(message))
}

func (s translatingStream) RecvMsg(message any) error {
	return translated(s.ClientStream.RecvMsg(message))
}

func translated(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return translate(err)
}
