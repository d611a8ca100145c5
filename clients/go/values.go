package mailing

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

const clientBits = 32

// MessageID returns the id of the message of a mailing to a client.
func MessageID(mailingID, clientID int64) int64 { return mailingID<<clientBits | clientID }

// MailingOf returns the mailing of a message, read from the message's id.
func MailingOf(messageID int64) int64 { return messageID >> clientBits }

// ClientOf returns the client of a message, read from the message's id.
func ClientOf(messageID int64) int64 { return messageID & (1<<clientBits - 1) }

// Window returns the daily window from start to end, local times such as "9:00" or "09:00:30". An end at or before
// the start is on the next day: 22:00 to 06:00 crosses midnight, and equal times mean the whole day.
func Window(start, end string) (*mailingv1.ReceiveWindow, error) {
	opens, err := TimeOfDay(start)
	if err != nil {
		return nil, err
	}
	closes, err := TimeOfDay(end)
	if err != nil {
		return nil, err
	}
	length := sinceMidnight(closes) - sinceMidnight(opens)
	if length <= 0 {
		length += 24 * time.Hour
	}
	return &mailingv1.ReceiveWindow{Start: opens, Duration: durationpb.New(length)}, nil
}

// TimeOfDay returns a local time of day from text such as "9:00" or "09:00:30".
func TimeOfDay(text string) (*mailingv1.TimeOfDay, error) {
	for _, layout := range []string{"15:04", "15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return &mailingv1.TimeOfDay{Hours: int32(at.Hour()), Minutes: int32(at.Minute()), Seconds: int32(at.Second())}, nil
		}
	}
	return nil, fmt.Errorf("mailing: %q is not a time of day such as 09:00 or 09:00:30", text)
}

func sinceMidnight(at *mailingv1.TimeOfDay) time.Duration {
	return time.Duration(at.GetHours())*time.Hour + time.Duration(at.GetMinutes())*time.Minute + time.Duration(at.GetSeconds())*time.Second
}

var (
	phoneMarks = strings.NewReplacer(" ", "", "-", "", "(", "", ")", "", ".", "")
	phone      = regexp.MustCompile(`^\+?([1-9]\d{6,14})$`)
)

// Phone returns the digits of an international number as people write it: "+7 (916) 123-45-67".
func Phone(text string) (string, error) {
	digits := phone.FindStringSubmatch(phoneMarks.Replace(text))
	if digits == nil {
		return "", fmt.Errorf("mailing: %q is not an international phone number of 7 to 15 digits such as +79161234567", text)
	}
	return digits[1], nil
}

// Moment returns a moment from text in RFC 3339, such as "2030-01-31T09:00:00+03:00".
func Moment(text string) (*timestamppb.Timestamp, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("mailing: %q is not a moment with its zone such as 2030-01-31T09:00:00+03:00", text)
	}
	return timestamppb.New(at), nil
}

// LocalTime returns a date and a time of day without a zone, from text such as "2030-01-31T09:30:00".
func LocalTime(text string) (*mailingv1.CivilDateTime, error) {
	at, err := time.Parse("2006-01-02T15:04:05", text)
	if err != nil {
		return nil, fmt.Errorf("mailing: %q is not a local time such as 2030-01-31T09:30:00", text)
	}
	return &mailingv1.CivilDateTime{
		Year: int32(at.Year()), Month: int32(at.Month()), Day: int32(at.Day()),
		Hours: int32(at.Hour()), Minutes: int32(at.Minute()), Seconds: int32(at.Second()),
	}, nil
}
