package watermillpgmq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// Ordering says in which order a subscription delivers messages.
type Ordering int

const (
	// Unordered delivers messages in the order of their ids as far as nothing speaks against it: with
	// Concurrency 1 and one subscriber, all of them, but for those that were nacked or delayed, which
	// others overtake.
	Unordered Ordering = iota
	// PerGroup delivers the messages of a FIFO group strictly in the order of their ids: the next one
	// when the settlement of the one before is committed, whoever of any number of subscribers handles
	// it. A message that was nacked or delayed holds back its group, and no other. Up to Concurrency
	// groups are handled at the same time. Messages without a group share one. See
	// PublisherConfig.GroupKey.
	PerGroup
)

// mostGroupKey is how many characters of a group key count.
const mostGroupKey = 200

// GroupKeyParams is what a group key can be made of.
type GroupKeyParams struct {
	// Topic of the Publish call.
	Topic string
	// Message to publish.
	Message *message.Message
}

// GroupKeyError says why a message has no group key. It matches what its cause matches.
type GroupKeyError struct {
	// UUID is the message's, and Key the key that was made for it.
	UUID, Key string
	// Rule is what is wrong with the key.
	Rule string
	// Err is what the GroupKey function returned, or nil.
	Err error
}

func (e *GroupKeyError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("group key of message %q: %v", e.UUID, e.Err)
	}
	return fmt.Sprintf("group key %.100q of message %q: it must be %s", e.Key, e.UUID, e.Rule)
}

// Unwrap returns the cause.
func (e *GroupKeyError) Unwrap() error { return e.Err }

// ErrNoGroupKey is what the functions of this package return for a message that lacks what its group is
// to be made of.
var ErrNoGroupKey = errors.New("the message has nothing to make a group key of")

// GroupByMetadata makes the value of a metadata key the group. A message without it is ErrNoGroupKey.
func GroupByMetadata(key string) func(GroupKeyParams) (string, error) {
	return func(params GroupKeyParams) (string, error) {
		value, ok := params.Message.Metadata[key]
		if !ok {
			return "", fmt.Errorf("%w: no metadata %q", ErrNoGroupKey, key)
		}
		return value, nil
	}
}

// GroupByJSONField makes a field of a JSON payload the group: "customer_id", or "customer.id" in an object
// within. A string counts as it is, a number or a boolean as its JSON. A payload without it is
// ErrNoGroupKey.
func GroupByJSONField(path string) func(GroupKeyParams) (string, error) {
	names := strings.Split(path, ".")
	return func(params GroupKeyParams) (string, error) {
		value := json.RawMessage(params.Message.Payload)
		for _, name := range names {
			var object map[string]json.RawMessage
			if err := json.Unmarshal(value, &object); err != nil {
				return "", fmt.Errorf("%w: no field %q: %w", ErrNoGroupKey, path, err)
			}
			value = object[name]
		}
		var text string
		if err := json.Unmarshal(value, &text); err == nil && string(value) != "null" {
			return text, nil
		}
		if len(value) == 0 || value[0] == '{' || value[0] == '[' || value[0] == 'n' {
			return "", fmt.Errorf("%w: no string, number or boolean in field %q", ErrNoGroupKey, path)
		}
		return string(value), nil
	}
}

// GroupByTopic makes the topic the group.
func GroupByTopic() func(GroupKeyParams) (string, error) {
	return func(params GroupKeyParams) (string, error) { return params.Topic, nil }
}

// setGroup adds the group to the headers of an outgoing message. An empty key is no group: those messages
// share one.
func setGroup(out *pgmq.Outgoing, uuid, key string) error {
	fail := func(rule string) error { return &GroupKeyError{UUID: uuid, Key: key, Rule: rule} }
	switch {
	case key == "":
		return nil
	case !utf8.ValidString(key) || strings.ContainsRune(key, 0):
		return fail("valid UTF-8 without NUL")
	case utf8.RuneCountInString(key) > mostGroupKey:
		return fail(fmt.Sprintf("at most %d characters", mostGroupKey))
	}
	// The last member of a name counts, so ours is appended.
	headers := bytes.TrimSpace(out.Headers)
	headers = bytes.TrimSpace(bytes.TrimSuffix(headers, []byte("}")))
	grouped := make([]byte, 0, len(headers)+len(key)+len(pgmq.GroupHeader)+10)
	grouped = append(grouped, headers...)
	switch {
	case len(headers) == 0:
		grouped = append(grouped, '{')
	case len(headers) > 1:
		grouped = append(grouped, ',')
	}
	grouped = appendJSONString(grouped, pgmq.GroupHeader)
	grouped = append(grouped, ':')
	grouped = appendJSONString(grouped, key)
	grouped = append(grouped, '}')
	out.Headers = grouped
	return nil
}
