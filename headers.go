package watermillpgmq

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// The headers of a Watermill message. Every other header is metadata: its name is the key, its string the value.
// Other programs may send Watermill messages by setting them.
const (
	// UUIDHeader holds the UUID of a Watermill message. A message without it comes from somewhere else.
	UUIDHeader = "_watermill_message_uuid"
	// UUIDBase64Header holds, in base64, a UUID that is not text. UUIDHeader is "" then.
	UUIDBase64Header = "_watermill_message_uuid_base64"
	// PayloadEncodingHeader says how the payload is kept in a body that is a string: "text", the payload is that
	// string, or "base64". Without it, the body is the payload.
	PayloadEncodingHeader = "_watermill_payload_encoding"
	// MetadataBase64Header holds the metadata that cannot be headers: keys and values that are not text, and keys
	// that are names of this list or pgmq.GroupHeader. It is an object with keys and values in base64.
	MetadataBase64Header = "_watermill_metadata_base64"
)

// strictBase64 refuses what no encoder writes, so that there is one encoding of everything.
var strictBase64 = base64.StdEncoding.Strict()

// foreignNamespace is the namespace of the UUIDs of messages that have none: the version 5 UUID of the module's
// address in the namespace of URLs, b8ba078f-5f3d-50ac-bb16-20eabab5ef5b. The name within it is the queue in lower case, a slash and the message id.
var foreignNamespace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/watermill-pgmq/watermill-pgmq"))

func foreignUUID(queue string, id int64) string {
	name := append([]byte(strings.ToLower(queue)), '/')
	return uuid.NewSHA1(foreignNamespace, strconv.AppendInt(name, id, 10)).String()
}

// marshalHeaders returns the headers of a message as a JSON object. No encoding is "".
func marshalHeaders(uuid, encoding string, metadata message.Metadata) []byte {
	size := len(`{"`+UUIDHeader+`":"","`+PayloadEncodingHeader+`":""}`) + len(uuid) + len(encoding)
	for key, value := range metadata {
		size += len(key) + len(value) + len(`"":"",`)
	}
	dst := append(make([]byte, 0, size), `{"`+UUIDHeader+`":`...)
	if jsonbHoldsString(uuid) {
		dst = appendJSONString(dst, uuid)
	} else {
		dst = append(dst, `"","`+UUIDBase64Header+`":`...)
		dst = appendBase64String(dst, uuid)
	}
	if encoding != "" {
		dst = append(dst, `,"`+PayloadEncodingHeader+`":"`...)
		dst = append(dst, encoding...)
		dst = append(dst, '"')
	}
	hidden := 0
	for key, value := range metadata {
		if !isHeader(key, value) {
			hidden++
			continue
		}
		dst = append(dst, ',')
		dst = appendJSONString(dst, key)
		dst = append(dst, ':')
		dst = appendJSONString(dst, value)
	}
	if hidden > 0 {
		dst = append(dst, `,"`+MetadataBase64Header+`":`...)
		dst = appendHidden(dst, metadata)
	}
	return append(dst, '}')
}

// appendHidden appends the metadata that cannot be headers.
func appendHidden(dst []byte, metadata message.Metadata) []byte {
	separator := byte('{')
	for key, value := range metadata {
		if isHeader(key, value) {
			continue
		}
		dst = append(dst, separator)
		dst = appendBase64String(dst, key)
		dst = append(dst, ':')
		dst = appendBase64String(dst, value)
		separator = ','
	}
	return append(dst, '}')
}

// isHeader says whether metadata can be a header as it is.
func isHeader(key, value string) bool {
	switch key {
	case UUIDHeader, UUIDBase64Header, PayloadEncodingHeader, MetadataBase64Header, pgmq.GroupHeader:
		return false
	}
	return jsonbHoldsString(key) && jsonbHoldsString(value)
}

// headerReader takes the headers of a message apart.
type headerReader struct {
	metadata message.Metadata // filled by read

	uuid, uuidBase64, encoding, hidden, group                string
	hasUUID, hasUUIDBase64, hasEncoding, hasHidden, hasGroup bool
}

// foreign says whether the message was not sent by Watermill.
func (h *headerReader) foreign() bool { return !h.hasUUID && !h.hasUUIDBase64 }

// read reads the headers as Postgres prints them. It says which part breaks which rule; an empty rule is success.
func (h *headerReader) read(headers []byte) (part, rule string) {
	if headers == nil {
		return "", ""
	}
	// All keys and values share the memory of this one string.
	text := string(headers)
	if part, rule = h.readMembers(text); rule != "" {
		return part, rule
	}
	if h.hasUUIDBase64 {
		decoded, err := strictBase64.DecodeString(h.uuidBase64)
		if err != nil {
			return UUIDBase64Header, "is not base64"
		}
		h.uuid = string(decoded)
	}
	if h.hasEncoding && h.encoding != encodingText && h.encoding != encodingBase64 {
		return PayloadEncodingHeader, fmt.Sprintf("is %.100q; known are text and base64", h.encoding)
	}
	// The group of a message of ours was set beside its metadata. To others it is a header like any.
	if h.hasGroup && h.foreign() {
		h.metadata[pgmq.GroupHeader] = h.group
	}
	if h.hasHidden && !h.readHidden() {
		return MetadataBase64Header, "is not an object of base64 strings"
	}
	return "", ""
}

// readMembers stores every member, the fast way as far as the values are strings, as nearly all are.
func (h *headerReader) readMembers(text string) (part, rule string) {
	s := memberScanner{text: text}
	for s.next() {
		if part, rule = h.member(s.key, s.value, true); rule != "" {
			return part, rule
		}
	}
	if s.complete() {
		return "", ""
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return "headers", "are not a JSON object"
	}
	for key, value := range members {
		text, isString := string(value), value[0] == '"'
		if isString {
			text, isString = (&memberScanner{text: text}).string()
		}
		if part, rule = h.member(key, text, isString); rule != "" {
			return part, rule
		}
	}
	return "", ""
}

// member stores one header. Its value is the string's content, or the JSON text of what is not a string.
func (h *headerReader) member(name, value string, isString bool) (part, rule string) {
	switch name {
	case UUIDHeader:
		h.uuid, h.hasUUID = value, true
	case UUIDBase64Header:
		h.uuidBase64, h.hasUUIDBase64 = value, true
	case PayloadEncodingHeader:
		h.encoding, h.hasEncoding = value, true
	case MetadataBase64Header:
		h.hidden, h.hasHidden = value, true
		return "", ""
	case pgmq.GroupHeader:
		h.group, h.hasGroup = value, true
		return "", ""
	default:
		h.metadata[name] = value
		return "", ""
	}
	if !isString {
		return name, "is not a string"
	}
	return "", ""
}

// readHidden undoes appendHidden, which is the object that the scanner is made for.
func (h *headerReader) readHidden() bool {
	s := memberScanner{text: h.hidden}
	for s.next() {
		key, err := strictBase64.DecodeString(s.key)
		if err != nil {
			return false
		}
		value, err := strictBase64.DecodeString(s.value)
		if err != nil {
			return false
		}
		h.metadata[string(key)] = string(value)
	}
	return s.complete()
}

// memberScanner goes through a JSON object whose values are strings, as Postgres prints it, without allocating for
// strings without escapes. At anything else it stops, and is not complete.
type memberScanner struct {
	text string
	at   int

	key, value string // set by next
	broken     bool
}

// next reads one member; false means that there is none, or that it is not one of two strings.
func (s *memberScanner) next() bool {
	switch {
	case s.at > 0:
		if !s.take(',') {
			return false
		}
	case !s.take('{'):
		s.broken = true
		return false
	case s.peek() == '}':
		return false
	}
	var ok bool
	if s.key, ok = s.string(); ok && s.take(':') {
		if s.value, ok = s.string(); ok {
			return true
		}
	}
	s.broken = true
	return false
}

// complete says, after next was false, whether the object has been read to its end.
func (s *memberScanner) complete() bool {
	return !s.broken && s.take('}') && s.at == len(s.text)
}

// peek skips spaces and returns the byte there; 0 is the end.
func (s *memberScanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		if c := s.text[s.at]; c != ' ' {
			return c
		}
	}
	return 0
}

func (s *memberScanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

func (s *memberScanner) string() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	rest := s.text[s.at:]
	escaped := false
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			s.at += i + 1
			if !escaped {
				return rest[:i], true
			}
			unescaped, ok := appendUnescaped(nil, rest[:i])
			return string(unescaped), ok
		}
	}
	return "", false
}
