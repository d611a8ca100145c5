package mailing

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

func clientsOf(count, characters int) func(func(*mailingv1.Client, error) bool) {
	return func(yield func(*mailingv1.Client, error) bool) {
		for range count {
			if !yield(&mailingv1.Client{Tag: strings.Repeat("x", characters)}, nil) {
				return
			}
		}
	}
}

func TestImportsAreCutByCountAndBytes(t *testing.T) {
	for name, one := range map[string]struct{ count, characters, messages int }{
		"none":     {0, 0, 1},
		"by count": {1001, 10, 3},
		"by bytes": {20, 300_000, 7},
		"too long": {2, 3_000_000, 2},
	} {
		messages, clients := 0, 0
		for request, err := range importRequests(clientsOf(one.count, one.characters), nil) {
			if err != nil {
				t.Fatal(err)
			}
			messages++
			clients += len(request.GetClients())
		}
		if messages != one.messages || clients != one.count {
			t.Errorf("%s: %d clients in %d messages", name, clients, messages)
		}
	}
}

func TestOptionsStandInTheFirstMessageOnly(t *testing.T) {
	first := true
	for request := range importRequests(clientsOf(501, 1), &mailingv1.ImportClientsRequest{SkipInvalid: true}) {
		if request.GetSkipInvalid() != first {
			t.Error("the options are in the wrong message")
		}
		first = false
	}
}

func response(token string, ids ...int64) *mailingv1.WatchMessagesResponse {
	found := &mailingv1.WatchMessagesResponse{ResumeToken: token}
	for _, id := range ids {
		found.Changes = append(found.Changes, &mailingv1.MessageChange{MessageId: id})
	}
	return found
}

func TestAResumedStreamRepeatsNothing(t *testing.T) {
	var r repeats
	count := func(response *mailingv1.WatchMessagesResponse) int { return len(r.fresh(response)) }
	if count(response("a", 1, 2)) != 2 || count(response("a", 3)) != 1 {
		t.Fatal("changes are missing before the stream is resumed")
	}
	r.resume()
	if count(response("a", 1, 2)) != 0 || count(response("b", 3, 4)) != 1 || count(response("c", 5)) != 1 {
		t.Error("a change was repeated, or is missing")
	}
}

func TestOnlyReadsAndCreationsAreRepeated(t *testing.T) {
	config := serviceConfig()
	for name, repeated := range map[string]bool{
		"GetMailing": true, "WatchMessages": true, "CreateMailing": true, "TriggerSchedule": true,
		"SendTestMessage": false, "ProbeEndpoint": false, "DeleteClient": false, "ImportClients": false,
	} {
		if strings.Contains(config, `"`+name+`"`) != repeated {
			t.Errorf("%s: repeated should be %t", name, repeated)
		}
	}
}

func TestAnErrorWithoutDetailsMayBeTheNetworks(t *testing.T) {
	for code, transport := range map[codes.Code]bool{
		codes.Unavailable: true, codes.Unknown: true, codes.Internal: true, codes.Aborted: true,
		codes.NotFound: false, codes.DeadlineExceeded: false, codes.Canceled: false,
	} {
		failure := translate(status.Error(code, "a sentence"))
		if failure.Transport() != transport || status.Code(failure) != code {
			t.Errorf("%s: %v", code, failure)
		}
	}
}

func TestValuesRefuseWhatIsNone(t *testing.T) {
	_, window := Window("9:00", "24:00")
	_, number := Phone("079161234567")
	_, moment := Moment("2030-01-31 09:00")
	_, local := LocalTime("tomorrow")
	if err := errors.Join(window, number, moment, local); strings.Count(err.Error(), "such as") != 4 {
		t.Error(err)
	}
}

func TestIdsOfMessagesAreTakenApart(t *testing.T) {
	id := MessageID(3_000_000, 1<<32-1)
	if MailingOf(id) != 3_000_000 || ClientOf(id) != 1<<32-1 {
		t.Error(id)
	}
}
