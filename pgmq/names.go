package pgmq

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of PGMQ's names, in bytes.
const (
	// MaxQueueName is the longest queue name: with what PGMQ puts around it (tables, indexes, the
	// notification channel) it just fits into the 63 bytes of a Postgres identifier.
	MaxQueueName = 47
	// MaxTopic is the longest routing key and the longest topic pattern.
	MaxTopic = 255
)

// What the errors of this file match, by errors.Is.
var (
	// ErrInvalidQueueName: a name that no queue can have.
	ErrInvalidQueueName = errors.New("invalid queue name")
	// ErrInvalidTopic: a routing key or a topic pattern that PGMQ refuses.
	ErrInvalidTopic = errors.New("invalid topic")
)

// NameError says which name breaks which rule. It matches ErrInvalidQueueName or ErrInvalidTopic.
type NameError struct {
	// Kind is what the name was to be: "queue name", "routing key" or "topic pattern".
	Kind string
	// Name is the name as it was given.
	Name string
	// Rule is what is wrong with it, to be read after the name: "is empty".
	Rule string
}

const (
	kindQueueName    = "queue name"
	kindRoutingKey   = "routing key"
	kindTopicPattern = "topic pattern"
)

func (e *NameError) Error() string {
	// Precision counts runes: a name that is far too long must not flood the log.
	return fmt.Sprintf("invalid %s %.100q: it %s", e.Kind, e.Name, e.Rule)
}

// Unwrap makes errors.Is find the sentinel of the kind.
func (e *NameError) Unwrap() error {
	if e.Kind == kindQueueName {
		return ErrInvalidQueueName
	}
	return ErrInvalidTopic
}

// ValidateQueueName says whether a queue can have this name: 1 to 47 bytes of UTF-8 without NUL, "$", ";", "'"
// and "--". The server counts characters; bytes keep names apart whose table names Postgres would cut off
// to the same 63 bytes. Upper case is allowed, yet not distinct: the queues "A" and "a" share their tables; and
// beyond A-Z it is refused, because what table it means depends on the server's locale.
func ValidateQueueName(name string) error {
	if rule := queueNameRule(name); rule != "" {
		return &NameError{Kind: kindQueueName, Name: name, Rule: rule}
	}
	return nil
}

// ValidateRoutingKey says whether a message can be sent to this key: dot-separated, non-empty segments of
// letters, digits, "_" and "-", at most 255 bytes in all.
func ValidateRoutingKey(key string) error {
	if rule := topicRule(key, false); rule != "" {
		return &NameError{Kind: kindRoutingKey, Name: key, Rule: rule}
	}
	return nil
}

// ValidateTopicPattern says whether a queue can be bound to this pattern: a routing key that may also contain
// the wildcards "*" and "#", anywhere, but not side by side. See MatchTopic for what they stand for.
func ValidateTopicPattern(pattern string) error {
	if rule := topicRule(pattern, true); rule != "" {
		return &NameError{Kind: kindTopicPattern, Name: pattern, Rule: rule}
	}
	return nil
}

// MatchTopic says whether a message sent to key reaches a queue bound to pattern. "*" stands for one or more
// characters without a dot, "#" for any text, the empty one and dots included. So "logs.#" does not match
// "logs", and "a.#.b" does not match "a.b". Both arguments are expected to be valid.
func MatchTopic(pattern, key string) bool {
	// ends[j]: the part of the pattern seen so far matches key[:j]. Growing it by one byte of the pattern at a
	// time costs len(pattern) * len(key) at worst, where backtracking could take exponential time.
	var onStack [MaxTopic + 1]bool
	ends := onStack[:]
	if len(key) > MaxTopic {
		ends = make([]bool, len(key)+1)
	}
	ends = ends[:len(key)+1]
	ends[0] = true
	for _, wanted := range []byte(pattern) {
		before := ends[0]
		ends[0] = before && wanted == '#'
		for j := 1; j < len(ends); j++ {
			here, c := ends[j], key[j-1]
			switch wanted {
			case '*': // one byte more than a match that ended, or a run of "*" that got, one byte earlier
				ends[j] = (before || ends[j-1]) && c != '.'
			case '#':
				ends[j] = here || ends[j-1]
			default:
				ends[j] = before && c == wanted
			}
			before = here
		}
	}
	return ends[len(key)]
}

func queueNameRule(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > MaxQueueName:
		return fmt.Sprintf("is %d bytes long; at most %d are allowed", len(name), MaxQueueName)
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII && unicode.ToLower(r) != r }):
		return "has upper case other than A-Z, which becomes lower case on some servers only"
	case strings.ContainsAny(name, "$;'\x00"):
		return "contains one of $ ; ' NUL"
	case strings.Contains(name, "--"):
		return "contains --"
	}
	return ""
}

func topicRule(topic string, wildcards bool) string {
	const emptySegment = "has an empty segment: a dot at its start, at its end or after another dot"
	switch {
	case topic == "":
		return "is empty"
	case len(topic) > MaxTopic:
		return fmt.Sprintf("is %d bytes long; at most %d are allowed", len(topic), MaxTopic)
	case strings.HasSuffix(topic, "."):
		return emptySegment
	}
	last := byte('.')
	for i := range len(topic) {
		c := topic[i]
		switch {
		case c == '.':
			if last == '.' {
				return emptySegment
			}
		case isWildcard(c):
			if !wildcards {
				return "contains a wildcard (* or #), which only a pattern may"
			}
			if isWildcard(last) {
				return "has two wildcards side by side"
			}
		case !isTopicByte(c):
			r, _ := utf8.DecodeRuneInString(topic[i:])
			return fmt.Sprintf("contains %q; allowed are A-Z a-z 0-9 . _ -", r)
		}
		last = c
	}
	return ""
}

func isWildcard(c byte) bool { return c == '*' || c == '#' }

func isTopicByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
