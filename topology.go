package watermillpgmq

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// Topology says which routing keys, queues and bindings stand for a Watermill topic.
type Topology interface {
	// PublishTo is where a message published to topic goes.
	PublishTo(topic string) (Destination, error)
	// SubscribeTo is what a subscriber of topic reads. An empty consumer group is none.
	SubscribeTo(topic, consumerGroup string) (Source, error)
}

// Destination is where messages are sent: exactly one of the two is set.
type Destination struct {
	// RoutingKey reaches every queue that is bound to a pattern matching it.
	RoutingKey string
	// Queue is one queue.
	Queue string
}

// Source is the queue that a subscription reads.
type Source struct {
	Queue string
	// Pattern is what the queue is to be bound to. Empty: to nothing, the queue is read as it is.
	Pattern string
}

// TopicTopology is the default topology. A topic is a routing key, and in Subscribe a pattern that may have the
// wildcards "*" (one segment) and "#" (any text). Each pair of pattern and consumer group is one queue: subscribers of
// one group share its messages, and every group gets its own copy of each message.
type TopicTopology struct {
	// GenerateRoutingKey makes the routing key of a topic, and the pattern of a topic that is subscribed to. An
	// application that prefixes both keeps apart from others in the same database. Default: the topic itself.
	GenerateRoutingKey func(RoutingKeyParams) (string, error)
	// GenerateQueueName makes the name of the queue to subscribe to. Different pairs of pattern and group must get
	// different names, in lower case: queues whose names differ by case only are one. Default: QueueName of pattern
	// and group.
	GenerateQueueName func(QueueNameParams) (string, error)
}

// RoutingKeyParams is what a routing key can be made of.
type RoutingKeyParams struct {
	// Topic of the Publish or Subscribe call.
	Topic string
}

// QueueNameParams is what the name of a queue can be made of.
type QueueNameParams struct {
	// Topic of the Publish or Subscribe call.
	Topic string
	// Pattern that the queue will be bound to. Empty in a QueueTopology.
	Pattern string
	// ConsumerGroup of the subscriber. Empty: none.
	ConsumerGroup string
}

// PublishTo implements Topology.
func (t TopicTopology) PublishTo(topic string) (Destination, error) {
	key, err := t.routingKey(topic)
	if err == nil {
		err = pgmq.ValidateRoutingKey(key)
	}
	if err != nil {
		return Destination{}, topicError(topic, err)
	}
	return Destination{RoutingKey: key}, nil
}

// SubscribeTo implements Topology.
func (t TopicTopology) SubscribeTo(topic, consumerGroup string) (Source, error) {
	pattern, err := t.routingKey(topic)
	if err == nil {
		err = pgmq.ValidateTopicPattern(pattern)
	}
	if err != nil {
		return Source{}, topicError(topic, err)
	}
	if t.GenerateQueueName == nil {
		return Source{Queue: QueueName(pattern, consumerGroup), Pattern: pattern}, nil
	}
	queue, err := t.GenerateQueueName(QueueNameParams{Topic: topic, Pattern: pattern, ConsumerGroup: consumerGroup})
	if err == nil {
		err = pgmq.ValidateQueueName(queue)
	}
	if err == nil && queue != strings.ToLower(queue) {
		err = &pgmq.NameError{Kind: "queue name", Name: queue, Rule: "has upper case, which queues are not told apart by"}
	}
	if err != nil {
		return Source{}, topicError(topic, err)
	}
	return Source{Queue: queue, Pattern: pattern}, nil
}

func (t TopicTopology) routingKey(topic string) (string, error) {
	// An empty topic is always a mistake, and a prefix would hide it.
	if topic == "" || t.GenerateRoutingKey == nil {
		return topic, nil
	}
	return t.GenerateRoutingKey(RoutingKeyParams{Topic: topic})
}

// QueueTopology has a queue for each topic, which publishers send to directly: for work queues, for queues that exist
// already, and for PGMQ before 1.11. There are no consumer groups and no wildcards.
type QueueTopology struct {
	// GenerateQueueName makes the name of a topic's queue. Default: the topic itself.
	GenerateQueueName func(QueueNameParams) (string, error)
}

// PublishTo implements Topology.
func (t QueueTopology) PublishTo(topic string) (Destination, error) {
	queue, err := t.queueName(topic)
	return Destination{Queue: queue}, err
}

// SubscribeTo implements Topology. It refuses a consumer group with ErrConsumerGroup.
func (t QueueTopology) SubscribeTo(topic, consumerGroup string) (Source, error) {
	if consumerGroup != "" {
		return Source{}, &ConsumerGroupError{
			Topic: topic, ConsumerGroup: consumerGroup,
			Rule: "cannot have its own copy of the messages in a QueueTopology; use TopicTopology",
		}
	}
	queue, err := t.queueName(topic)
	return Source{Queue: queue}, err
}

func (t QueueTopology) queueName(topic string) (string, error) {
	queue, err := topic, error(nil)
	if topic != "" && t.GenerateQueueName != nil {
		queue, err = t.GenerateQueueName(QueueNameParams{Topic: topic})
	}
	if err == nil {
		err = pgmq.ValidateQueueName(queue)
	}
	if err != nil {
		return "", topicError(topic, err)
	}
	return queue, nil
}

// What the errors of this file match, by errors.Is. ErrInvalidTopic is the one of pgmq.
var (
	// ErrInvalidTopic: a topic that no message can be published to, or that cannot be subscribed to.
	ErrInvalidTopic = pgmq.ErrInvalidTopic
	// ErrConsumerGroup: a consumer group where there can be none.
	ErrConsumerGroup = errors.New("consumer group not possible")
)

// TopicError says why a topic is refused. It matches ErrInvalidTopic, and what its cause matches:
// pgmq.ErrInvalidQueueName for instance, or what a GenerateRoutingKey or GenerateQueueName returned.
type TopicError struct {
	// Topic is the topic as it was given.
	Topic string
	// Rule is what is wrong with it, to be read after the topic: "is empty".
	Rule string
	// Err is the cause.
	Err error
}

func (e *TopicError) Error() string {
	return fmt.Sprintf("invalid topic %.100q: it %s", e.Topic, e.Rule)
}

// Is makes errors.Is find ErrInvalidTopic, whatever the cause is.
func (e *TopicError) Is(target error) bool { return target == ErrInvalidTopic }

// Unwrap returns the cause.
func (e *TopicError) Unwrap() error { return e.Err }

// ConsumerGroupError says why a consumer group is refused. It matches ErrConsumerGroup.
type ConsumerGroupError struct {
	// Topic and ConsumerGroup are as they were given.
	Topic, ConsumerGroup string
	// Rule is what is wrong with the group, to be read after it.
	Rule string
}

func (e *ConsumerGroupError) Error() string {
	return fmt.Sprintf("topic %.100q: consumer group %.100q %s", e.Topic, e.ConsumerGroup, e.Rule)
}

// Unwrap makes errors.Is find ErrConsumerGroup.
func (e *ConsumerGroupError) Unwrap() error { return ErrConsumerGroup }

// topicError returns err, which came up for a topic, as a *TopicError.
func topicError(topic string, err error) error {
	var name *pgmq.NameError
	rule := fmt.Sprintf("has no name in PGMQ: %v", err)
	if errors.As(err, &name) {
		rule = name.Rule
		if name.Name != topic {
			rule = fmt.Sprintf("becomes the %s %.100q, which %s", name.Kind, name.Name, name.Rule)
		}
	}
	return &TopicError{Topic: topic, Rule: rule, Err: err}
}

// QueueName is the name that TopicTopology gives to the queue of a topic, or of a pattern of topics, and a consumer
// group, which may be empty. It never changes from one release to the next: queues live long.
//
//   - "orders.created", or with a group "orders.created:billing", where topic and group are made of a-z 0-9 . _ * # -
//     without "--", and both together fit into 47 bytes.
//   - Otherwise as much of topic and group as fits into 30 bytes, in lower case and with other characters replaced by
//     "-", then "~" and 16 hexadecimal digits of a hash: "orders.created:billing~02651a592efcd9e4" for the group "Billing". The hash
//     is the beginning of the SHA-256 of topic, a zero byte and group, and makes different pairs different names.
//
// Topics are expected not to contain a zero byte; no valid one does.
func QueueName(topic, group string) string {
	name := topic
	if group != "" {
		name = topic + groupSeparator + group
	}
	if len(name) <= pgmq.MaxQueueName && topic != "" && readable(topic) == topic && readable(group) == group {
		return name
	}
	sum := sha256.Sum256([]byte(topic + "\x00" + group))
	suffix := hashSeparator + hex.EncodeToString(sum[:8])
	return readablePrefix(topic, group, pgmq.MaxQueueName-len(suffix)) + suffix
}

const (
	groupSeparator = ":"
	hashSeparator  = "~"
)

// readablePrefix shows topic and group in at most size bytes. Where they are too long, each gets about a half, and
// what the shorter one leaves.
func readablePrefix(topic, group string, size int) string {
	topic, group = readable(topic), readable(group)
	if group == "" {
		return topic[:min(len(topic), size)]
	}
	size -= len(groupSeparator)
	groupSize := min(len(group), max(size/2, size-len(topic)))
	topicSize := min(len(topic), size-groupSize)
	return topic[:topicSize] + groupSeparator + group[:groupSize]
}

// readable returns text in lower case with every run of characters that are not allowed, and of "-", made one "-".
func readable(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("._*#", r) {
			b.WriteRune(r)
		} else if !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	return b.String()
}
