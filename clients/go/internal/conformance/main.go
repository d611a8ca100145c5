// Command conformance runs the scenario that every client library passes, and prints what it saw.
// tests/clients/README.md describes both.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"example.com/mailing/clients/go"
)

type plan struct {
	Variables map[string]string `json:"variables"`
	Steps     []json.RawMessage `json:"steps"`
}

type meanwhile struct {
	After   int               `json:"after"`
	Token   string            `json:"token"`
	Control []json.RawMessage `json:"control"`
}

type step struct {
	Name   string                     `json:"name"`
	Using  string                     `json:"using"`
	Expect map[string]json.RawMessage `json:"expect"`
	Save   map[string]string          `json:"save"`

	Connect  string  `json:"connect"`
	Address  string  `json:"address"`
	Token    string  `json:"token"`
	Callback bool    `json:"callback"`
	CA       string  `json:"ca"`
	Cert     string  `json:"cert"`
	Key      string  `json:"key"`
	Timeout  float64 `json:"timeout"`

	Call          string            `json:"call"`
	Pages         string            `json:"pages"`
	Request       json.RawMessage   `json:"request"`
	Items         string            `json:"items"`
	Each          []any             `json:"each"`
	Import        *importStep       `json:"import"`
	WatchMailing  string            `json:"watch_mailing"`
	WatchMessages *messagesStep     `json:"watch_messages"`
	Meanwhile     meanwhile         `json:"meanwhile"`
	Control       []json.RawMessage `json:"control"`
	Value         string            `json:"value"`
	Of            []string          `json:"of"`
}

type connection struct {
	*mailing.Client
	token *atomic.Value
}

type runner struct {
	variables   map[string]string
	connections map[string]connection
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(content, &p); err != nil {
		return err
	}
	r := runner{p.Variables, map[string]connection{}}
	for _, raw := range p.Steps {
		if err := r.step(raw); err != nil {
			return fmt.Errorf("%s: %w", raw, err)
		}
	}
	return nil
}

func (r *runner) step(raw json.RawMessage) error {
	var s step
	if err := json.Unmarshal(r.replaced(raw), &s); err != nil {
		return err
	}
	result, err := r.result(s)
	var failure *mailing.Error
	if errors.As(err, &failure) {
		result = map[string]any{"error": described(failure)}
	} else if err != nil {
		return err
	}
	saved := map[string]string{}
	for variable, path := range s.Save {
		if saved[variable], err = text(at(result, path)); err != nil {
			return fmt.Errorf("save %s: %w", path, err)
		}
		r.variables[variable] = saved[variable]
	}
	seen := map[string]any{}
	for path := range s.Expect {
		seen[path] = at(result, path)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"step": s.Name, "seen": seen, "saved": saved, "error": at(result, "error"),
	})
}

func (r *runner) replaced(raw []byte) []byte {
	for name, value := range r.variables {
		quoted, _ := json.Marshal(value)
		raw = bytes.ReplaceAll(raw, []byte("${"+name+"}"), quoted[1:len(quoted)-1])
	}
	return raw
}

func (r *runner) result(s step) (any, error) {
	if s.Using == "" {
		s.Using = "main"
	}
	on := r.connections[s.Using]
	ctx := context.Background()
	switch {
	case s.Connect != "":
		return r.connect(s)
	case len(s.Each) > 0:
		return r.each(ctx, on, s)
	case s.Call != "":
		return call(ctx, on.Client, s.Call, s.Request)
	case s.Pages != "":
		return pages(ctx, on.Client, s)
	case s.Import != nil:
		return importClients(ctx, on.Client, s.Import)
	case s.WatchMailing != "":
		return watchMailing(ctx, on.Client, s.WatchMailing)
	case s.WatchMessages != nil:
		return r.watchMessages(ctx, on, s)
	case s.Control != nil:
		return r.control(s.Control)
	case s.Token != "":
		on.token.Store(s.Token)
		return map[string]any{}, nil
	case s.Value != "":
		return value(s.Value, s.Of)
	}
	return nil, errors.New("a step of no known kind")
}

func (r *runner) connect(s step) (any, error) {
	var current atomic.Value
	current.Store(s.Token)
	var options []mailing.Option
	if s.Callback {
		options = append(options, mailing.WithTokenSource(func(context.Context) (string, error) {
			return current.Load().(string), nil
		}))
	} else if s.Token != "" {
		options = append(options, mailing.WithToken(s.Token))
	}
	if s.CA != "" || s.Cert != "" {
		config, err := mailing.TLSFromFiles(s.CA, s.Cert, s.Key)
		if err != nil {
			return nil, err
		}
		options = append(options, mailing.WithTLS(config))
	}
	if s.Timeout > 0 {
		options = append(options, mailing.WithTimeout(time.Duration(s.Timeout*float64(time.Second))))
	}
	client, err := mailing.Connect(s.Address, options...)
	if err != nil {
		return invalid(err), nil
	}
	r.connections[s.Connect] = connection{client, &current}
	return map[string]any{}, nil
}

// control sends commands to the test and returns its last answer.
func (r *runner) control(commands []json.RawMessage) (any, error) {
	var answer any
	for _, command := range commands {
		response, err := http.Post(r.variables["control"], "application/json", bytes.NewReader(command))
		if err != nil {
			return nil, err
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s %v", command, response.Status, err)
		}
	}
	return answer, nil
}

// described returns an error in the words of the scenario.
func described(e *mailing.Error) map[string]any {
	fields := []any{}
	for _, one := range e.Fields {
		fields = append(fields, map[string]any{"field": one.Field, "description": one.Description})
	}
	metadata := map[string]any{}
	for name, fact := range e.Metadata {
		metadata[name] = fact
	}
	return map[string]any{
		"code": codeName(e), "reason": e.Reason, "message": e.Message, "hint": strings.Split(e.Message, " (")[0], "fields": fields, "metadata": metadata, "transport": e.Transport(),
	}
}

// codeName returns the code as the specification of gRPC writes it: "NotFound" becomes "NOT_FOUND".
func codeName(e *mailing.Error) string {
	var name strings.Builder
	for i, letter := range e.Code.String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}
