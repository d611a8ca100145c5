package mailing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// maxAttempts is how often a call is made at the most, the first time included.
const maxAttempts = 5

type methodName struct {
	Service string `json:"service"`
	Method  string `json:"method"`
}

// serviceConfig tells gRPC to use all addresses in turn and to repeat calls that are safe to repeat
// while the service is unavailable.
func serviceConfig() string {
	var names []methodName
	eachMethod(func(method protoreflect.MethodDescriptor) {
		if repeatable(method) {
			names = append(names, methodName{string(method.Parent().FullName()), string(method.Name())})
		}
	})
	config, err := json.Marshal(map[string]any{
		"loadBalancingConfig": []any{map[string]any{"round_robin": map[string]any{}}},
		"methodConfig": []any{map[string]any{
			"name": names,
			"retryPolicy": map[string]any{
				"maxAttempts":          maxAttempts,
				"initialBackoff":       "0.1s",
				"maxBackoff":           "5s",
				"backoffMultiplier":    2,
				"retryableStatusCodes": []string{"UNAVAILABLE"},
			},
		}},
	})
	if err != nil {
		panic(err) // names and numbers always encode
	}
	return string(config)
}

// repeatable reports whether a method may be called again when the outcome of the first call is not
// known: reads, and creations, whose request id makes the second call return what the first one made.
func repeatable(method protoreflect.MethodDescriptor) bool {
	if creates(method) {
		return true
	}
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

func creates(method protoreflect.MethodDescriptor) bool {
	name := string(method.Name())
	return strings.HasPrefix(name, "Create") || name == "TriggerSchedule"
}

func eachMethod(do func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("mailing.v1", func(file protoreflect.FileDescriptor) bool {
		for s := range file.Services().Len() {
			methods := file.Services().Get(s).Methods()
			for m := range methods.Len() {
				do(methods.Get(m))
			}
		}
		return true
	})
}

// methodOf returns the method of a path such as "/mailing.v1.ClientService/GetClient", or nil.
func methodOf(path string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	method, _ := found.(protoreflect.MethodDescriptor)
	return method
}

func limitTime(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, limited := ctx.Deadline(); !limited && timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}

// addRequestID gives creations without a request id a random one, which stays the same when the call
// is repeated. The caller's message is left as it is.
func addRequestID(ctx context.Context, path string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method := methodOf(path); method != nil && creates(method) {
		message := req.(proto.Message)
		field := message.ProtoReflect().Descriptor().Fields().ByName("request_id")
		if field != nil && !message.ProtoReflect().Has(field) {
			message = proto.Clone(message)
			message.ProtoReflect().Set(field, protoreflect.ValueOfString(newUUID()))
			req = message
		}
	}
	return invoke(ctx, path, req, reply, cc, opts...)
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// obeyRetryInfo repeats a repeatable call that was refused by a limit after the time the service asks
// for, if the deadline allows it.
func obeyRetryInfo(ctx context.Context, path string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	method := methodOf(path)
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, path, req, reply, cc, opts...)
		delay := translate(err).retryDelay()
		if delay <= 0 || attempt == maxAttempts || method == nil || !repeatable(method) || !pause(ctx, delay) {
			return err
		}
	}
}

// pause waits, and reports whether it could wait to the end; it does not begin when the deadline is nearer.
func pause(ctx context.Context, delay time.Duration) bool {
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < delay {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(delay):
		return true
	}
}

func (e *Error) retryDelay() time.Duration {
	if e == nil {
		return 0
	}
	return e.RetryDelay
}

func asError(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return translate(err)
}
