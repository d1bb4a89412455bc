package watermillpgmq

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// Marshaler turns a Watermill message into what is sent to a queue.
type Marshaler interface {
	// Marshal may keep msg's payload: neither changes afterwards. Topic is the topic of the Publish call.
	Marshal(topic string, msg *message.Message) (pgmq.Outgoing, error)
}

// Unmarshaler turns what was read from a queue into a Watermill message.
type Unmarshaler interface {
	// Unmarshal may keep msg's body. With an error it returns no message.
	Unmarshal(queue string, msg pgmq.Message) (*message.Message, error)
}

// JSONMarshaler sends a payload that is JSON as the JSON it is, so that SQL and other PGMQ clients see documents.
//
// Postgres stores such a document as jsonb and gives it back equal in value, not in bytes: white space and the order
// of members may differ, and numbers come without exponent. Use ExactMarshaler where bytes count, for signatures
// for instance. What is not JSON, or what jsonb would refuse or change in value, is carried byte for byte like
// ExactMarshaler does it: NUL characters, surrogates without their other half, members of the same name, the negative
// zero, numbers of more than 131,072 digits before the point or 16,383 after it, exponents that stand for more than
// 1,048,576 digits in all, more than 512 levels of nesting, more than 16 MiB.
//
// UUID and metadata become strings in the message's headers, see UUIDHeader.
//
// JSONMarshaler and ExactMarshaler read each other's messages, and those of senders that are not Watermill: their
// headers become metadata, strings as they are and other values as JSON text, and their UUID is a version 5 UUID of
// the queue and the message id, the same at every delivery. SQL NULL is the nil payload.
type JSONMarshaler struct{}

// Marshal implements Marshaler. Its error is a *MarshalError.
func (JSONMarshaler) Marshal(topic string, msg *message.Message) (pgmq.Outgoing, error) {
	if jsonbKeeps(msg.Payload) {
		return marshal(topic, msg, json.RawMessage(msg.Payload), "")
	}
	return marshalExactly(topic, msg)
}

// Unmarshal implements Unmarshaler. Its error is an *UnmarshalError.
func (JSONMarshaler) Unmarshal(queue string, msg pgmq.Message) (*message.Message, error) {
	return unmarshal(queue, msg)
}

// ExactMarshaler carries every payload byte for byte, in a JSON string: as text where the payload is text, and as
// base64 where it is not. The header PayloadEncodingHeader says which. It reads what JSONMarshaler reads.
type ExactMarshaler struct{}

// Marshal implements Marshaler. Its error is a *MarshalError.
func (ExactMarshaler) Marshal(topic string, msg *message.Message) (pgmq.Outgoing, error) {
	return marshalExactly(topic, msg)
}

// Unmarshal implements Unmarshaler. Its error is an *UnmarshalError.
func (ExactMarshaler) Unmarshal(queue string, msg pgmq.Message) (*message.Message, error) {
	return unmarshal(queue, msg)
}

// MarshalError says why a message cannot be sent at all: it is larger than what Postgres can hold.
type MarshalError struct {
	// Topic and UUID name the message.
	Topic, UUID string
	// Part is what is wrong: "payload" or "metadata".
	Part string
	// Rule is what is wrong with it, to be read after the part: "is 300000000 bytes long; ...".
	Rule string
}

func (e *MarshalError) Error() string {
	return fmt.Sprintf("cannot send message %.100q to topic %.100q: its %s %s", e.UUID, e.Topic, e.Part, e.Rule)
}

// UnmarshalError says why a message from a queue cannot become a Watermill message.
type UnmarshalError struct {
	// Queue and ID name the message.
	Queue string
	ID    int64
	// Part is what is wrong: "body", "headers", or the name of a header.
	Part string
	// Rule is what is wrong with it, to be read after the part: "is not a string".
	Rule string
}

func (e *UnmarshalError) Error() string {
	return fmt.Sprintf("message %d of queue %q is malformed: %s %s", e.ID, e.Queue, e.Part, e.Rule)
}

const (
	encodingText   = "text"
	encodingBase64 = "base64"
)

// maxString is the longest string we put into a jsonb. Postgres allows 268,435,455 bytes less some bookkeeping.
const maxString = 255 << 20

func marshalExactly(topic string, msg *message.Message) (pgmq.Outgoing, error) {
	payload := []byte(msg.Payload)
	if size, ok := textSize(payload); ok {
		return marshal(topic, msg, appendJSONString(make([]byte, 0, size), payload), encodingText)
	}
	size := base64.StdEncoding.EncodedLen(len(payload))
	if size > maxString {
		return pgmq.Outgoing{}, &MarshalError{Topic: topic, UUID: msg.UUID, Part: "payload", Rule: fmt.Sprintf(
			"is %d bytes long; at most %d are allowed, or %d where it is text",
			len(payload), base64.StdEncoding.DecodedLen(maxString), maxString)}
	}
	return marshal(topic, msg, appendBase64String(make([]byte, 0, size+2), payload), encodingBase64)
}

func marshal(topic string, msg *message.Message, body json.RawMessage, encoding string) (pgmq.Outgoing, error) {
	headers := marshalHeaders(msg.UUID, encoding, msg.Metadata)
	if len(headers) > maxDocument {
		return pgmq.Outgoing{}, &MarshalError{Topic: topic, UUID: msg.UUID, Part: "metadata", Rule: fmt.Sprintf(
			"is %d bytes long as JSON, UUID included; at most %d are allowed", len(headers), maxDocument)}
	}
	return pgmq.Outgoing{Body: body, Headers: headers}, nil
}

// textSize returns how long the payload is as a JSON string. It answers false where that cannot be, and where escapes
// would more than double the payload: nobody would call that text, and base64 is shorter.
func textSize(payload []byte) (int, bool) {
	if len(payload) > maxString || bytes.IndexByte(payload, 0) >= 0 || !utf8.Valid(payload) {
		return 0, false
	}
	size := 0
	for _, c := range payload {
		size += jsonEscapeSize(c)
	}
	return size + len(`""`), size <= 2*len(payload)
}

func appendBase64String[T ~string | ~[]byte](dst []byte, value T) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, []byte(value))
	return append(dst, '"')
}

func unmarshal(queue string, in pgmq.Message) (*message.Message, error) {
	out := message.NewMessage("", nil)
	malformed := func(part, rule string) (*message.Message, error) {
		return nil, &UnmarshalError{Queue: queue, ID: in.ID, Part: part, Rule: rule}
	}
	headers := headerReader{metadata: out.Metadata}
	if part, rule := headers.read(in.Headers); rule != "" {
		return malformed(part, rule)
	}
	out.UUID = headers.uuid
	if headers.foreign() {
		out.UUID = foreignUUID(queue, in.ID)
	}
	if !headers.hasEncoding {
		out.Payload = message.Payload(in.Body)
		return out, nil
	}
	payload, rule := decodePayload(in.Body, headers.encoding)
	if rule != "" {
		return malformed("body", rule)
	}
	out.Payload = payload
	return out, nil
}

// decodePayload undoes marshalExactly. The payload shares the body's memory where it can.
func decodePayload(body []byte, encoding string) (payload []byte, rule string) {
	if len(body) < len(`""`) || body[0] != '"' || body[len(body)-1] != '"' {
		return nil, "is not a string, though the header " + PayloadEncodingHeader + " says so"
	}
	inside := body[1 : len(body)-1 : len(body)-1]
	if encoding == encodingBase64 {
		payload = make([]byte, base64.StdEncoding.DecodedLen(len(inside)))
		n, err := strictBase64.Decode(payload, inside)
		if err != nil {
			return nil, "is not base64, though the header " + PayloadEncodingHeader + " says so"
		}
		return payload[:n], ""
	}
	if bytes.IndexByte(inside, '\\') < 0 {
		return inside, ""
	}
	payload, ok := appendUnescaped(make([]byte, 0, len(inside)), inside)
	if !ok {
		return nil, "is not a JSON string"
	}
	return payload, ""
}
