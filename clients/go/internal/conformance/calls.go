package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"example.com/mailing/clients/go"
	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

type importStep struct {
	Rows        int               `json:"rows"`
	Client      json.RawMessage   `json:"client"`
	Clients     []json.RawMessage `json:"clients"`
	BreaksAfter int               `json:"breaks_after"`
	Fill        struct {
		Attributes int `json:"attributes"`
		Characters int `json:"characters"`
	} `json:"fill"`
}

type messagesStep struct {
	MailingID   string  `json:"mailing_id"`
	FromStart   bool    `json:"from_start"`
	ResumeToken string  `json:"resume_token"`
	Until       int     `json:"until"`
	Within      float64 `json:"within"`
}

var errSource = errors.New("the source broke off")

// call makes any call, by the descriptors that the generated code registers.
func call(ctx context.Context, client *mailing.Client, name string, request json.RawMessage) (any, error) {
	service, methodName, _ := strings.Cut(name, ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("mailing.v1." + name))
	if err != nil {
		return nil, err
	}
	method := found.(protoreflect.MethodDescriptor)
	input, output := message(method.Input()), message(method.Output())
	if err := protojson.Unmarshal(request, input); err != nil {
		return nil, err
	}
	path := "/mailing.v1." + service + "/" + methodName
	if !method.IsStreamingServer() {
		if err := client.Conn().Invoke(ctx, path, input, output); err != nil {
			return nil, err
		}
		return document(output)
	}
	stream, err := client.Conn().NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(input), stream.CloseSend()); err != nil {
		return nil, err
	}
	responses := []any{}
	for {
		output := message(method.Output())
		if err := stream.RecvMsg(output); errors.Is(err, io.EOF) {
			return map[string]any{"responses": responses}, nil
		} else if err != nil {
			return nil, err
		}
		one, err := document(output)
		if err != nil {
			return nil, err
		}
		responses = append(responses, one)
	}
}

func message(descriptor protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		panic(err)
	}
	return kind.New().Interface()
}

// document returns a message as protobuf's JSON.
func document(m proto.Message) (any, error) {
	content, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var found any
	return found, json.Unmarshal(content, &found)
}

func (r *runner) each(ctx context.Context, on connection, s step) (any, error) {
	results := []any{}
	for _, one := range s.Each {
		request := strings.ReplaceAll(string(s.Request), "${each}", fmt.Sprint(one))
		result, err := call(ctx, on.Client, s.Call, json.RawMessage(request))
		var failure *mailing.Error
		if errors.As(err, &failure) {
			result = map[string]any{"error": described(failure)}
		} else if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return map[string]any{"results": results}, nil
}

func pages(ctx context.Context, client *mailing.Client, s step) (any, error) {
	var request map[string]any
	if err := json.Unmarshal(s.Request, &request); err != nil {
		return nil, err
	}
	for items, count := 0, 1; ; count++ {
		content, _ := json.Marshal(request)
		page, err := call(ctx, client, s.Pages, content)
		if err != nil {
			return nil, err
		}
		if length, ok := at(page, s.Items+".#").(int); ok {
			items += length
		}
		request["page_token"] = at(page, "nextPageToken")
		if request["page_token"] == nil {
			return map[string]any{"items": items, "pages": count}, nil
		}
	}
}

func importClients(ctx context.Context, client *mailing.Client, s *importStep) (any, error) {
	progress := 0
	response, err := client.ImportClients(ctx, s.all(), mailing.ImportOptions{Progress: func(sent int) { progress = sent }})
	if errors.Is(err, errSource) {
		return map[string]any{"error": map[string]any{"source": true}}, nil
	}
	if err != nil {
		return nil, err
	}
	result, err := document(response)
	if found, ok := result.(map[string]any); ok {
		found["progress"] = progress
	}
	return result, err
}

func (s *importStep) all() iter.Seq2[*mailingv1.Client, error] {
	return func(yield func(*mailingv1.Client, error) bool) {
		for _, row := range s.Clients {
			client := &mailingv1.Client{}
			if !yield(client, protojson.Unmarshal(row, client)) {
				return
			}
		}
		for row := range s.Rows {
			if s.BreaksAfter > 0 && row == s.BreaksAfter {
				yield(nil, errSource)
				return
			}
			if !yield(s.row(row)) {
				return
			}
		}
	}
}

func (s *importStep) row(number int) (*mailingv1.Client, error) {
	client := &mailingv1.Client{}
	text := strings.ReplaceAll(string(s.Client), "${row}", fmt.Sprintf("%07d", number))
	err := protojson.Unmarshal([]byte(text), client)
	for a := range s.Fill.Attributes {
		if client.Attributes == nil {
			client.Attributes = map[string]string{}
		}
		client.Attributes[fmt.Sprintf("a%d", a)] = strings.Repeat("x", s.Fill.Characters)
	}
	return client, err
}

func watchMailing(ctx context.Context, client *mailing.Client, id string) (any, error) {
	var last *mailingv1.Mailing
	for state, err := range client.WatchMailing(ctx, number(id), 0) {
		if err != nil {
			return nil, err
		}
		last = state
	}
	found, err := document(last)
	return map[string]any{"last": found}, err
}

type changeKey struct {
	message int64
	status  mailingv1.Message_Status
	time    time.Time
}

func (r *runner) watchMessages(ctx context.Context, on connection, s step) (any, error) {
	asked := s.WatchMessages
	ctx, cancel := context.WithTimeout(ctx, time.Duration(asked.Within*float64(time.Second)))
	defer cancel()
	watch := on.WatchMessages(&mailingv1.WatchMessagesRequest{
		MailingId: number(asked.MailingID), FromStart: asked.FromStart, ResumeToken: asked.ResumeToken,
	})
	seen, latest, statuses := map[changeKey]bool{}, map[int64]time.Time{}, map[string]any{}
	repeated, disordered, silence, before := 0, 0, "short", time.Now()
	for change, err := range watch.Changes(ctx) {
		if err != nil && ctx.Err() != nil {
			break
		} else if err != nil {
			return nil, err
		}
		if time.Since(before) > 45*time.Second {
			silence = "long"
		}
		before = time.Now()
		key := changeKey{change.GetMessageId(), change.GetStatus(), change.GetTime().AsTime()}
		if seen[key] {
			repeated++
			continue
		}
		seen[key] = true
		if key.time.Before(latest[key.message]) {
			disordered++
		}
		latest[key.message] = key.time
		name := strings.TrimPrefix(key.status.String(), "STATUS_")
		so_far, _ := statuses[name].(int)
		statuses[name] = so_far + 1
		if len(seen) == s.Meanwhile.After {
			if s.Meanwhile.Token != "" {
				on.token.Store(s.Meanwhile.Token)
			}
			if _, err := r.control(s.Meanwhile.Control); err != nil {
				return nil, err
			}
		}
		if len(seen) == asked.Until {
			break
		}
	}
	return map[string]any{
		"changes": len(seen), "repeated": repeated, "disordered": disordered, "statuses": statuses,
		"token": watch.ResumeToken(), "silence": silence,
	}, nil
}

// value calls a helper for values.
func value(name string, of []string) (any, error) {
	found, err := helper(name, of)
	if err != nil {
		return invalid(err), nil
	}
	if m, ok := found.(proto.Message); ok {
		found, err = document(m)
	}
	return map[string]any{"value": found}, err
}

// invalid returns what the library refuses without a call.
func invalid(err error) any {
	return map[string]any{"error": map[string]any{"invalid": true, "message": err.Error()}}
}

func helper(name string, of []string) (any, error) {
	switch name {
	case "message_id":
		return fmt.Sprint(mailing.MessageID(number(of[0]), number(of[1]))), nil
	case "mailing_of":
		return fmt.Sprint(mailing.MailingOf(number(of[0]))), nil
	case "client_of":
		return fmt.Sprint(mailing.ClientOf(number(of[0]))), nil
	case "window":
		return mailing.Window(of[0], of[1])
	case "phone":
		return mailing.Phone(of[0])
	case "moment":
		return mailing.Moment(of[0])
	case "local_time":
		return mailing.LocalTime(of[0])
	}
	panic("no helper " + name)
}

func number(text string) int64 {
	found, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return found
}

// at returns what stands at a path of a JSON value, or nil.
func at(document any, path string) any {
	if path == "" {
		return document
	}
	name, rest, _ := strings.Cut(path, ".")
	switch found := document.(type) {
	case map[string]any:
		if name == "#" {
			return len(found)
		}
		return at(found[name], rest)
	case []any:
		if name == "#" {
			return len(found)
		}
		if name == "*" {
			all := []any{}
			for _, one := range found {
				all = append(all, at(one, rest))
			}
			return all
		}
		if n, err := strconv.Atoi(name); err == nil && n < len(found) {
			return at(found[n], rest)
		}
	}
	return nil
}

func text(value any) (string, error) {
	if found, ok := value.(string); ok {
		return found, nil
	}
	return "", fmt.Errorf("%v is no text", value)
}
