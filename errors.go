package watermillpgmq

import (
	"errors"
	"fmt"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

var (
	// ErrPublisherClosed is returned by Publish after Close.
	ErrPublisherClosed = errors.New("publisher is closed")
	// ErrSubscriberClosed is returned by Subscribe and SubscribeInitialize after Close or Stop.
	ErrSubscriberClosed = errors.New("subscriber is closed")
	// ErrNilDB says that a nil pool was given.
	ErrNilDB = pgmq.ErrNilDB
	// ErrUnroutable says that a message was published to a topic that leads to no queue; see
	// Unroutable. Nothing of its Publish call was written.
	ErrUnroutable = errors.New("no queue is bound for the topic")
	// ErrMixedTransactions says that the messages of one Publish call carry different transactions, or
	// that some carry one and others none. Nothing was written.
	ErrMixedTransactions = errors.New("the messages of one Publish carry different transactions")
	// ErrOutcomeUnknown says that a Publish call gave up waiting while its messages were on their way:
	// they may have been published, or not.
	ErrOutcomeUnknown = errors.New("the messages may have been published or not")
	// ErrQueueConflict says that two topics of one Subscriber have the same queue, which could not tell
	// their messages apart.
	ErrQueueConflict = errors.New("another topic of this subscriber has the same queue")
)

// ConfigError says which field of a configuration is invalid.
type ConfigError struct {
	// Field is the field's name.
	Field string
	// Value is what it was set to.
	Value any
	// Rule is what it has to be.
	Rule string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("config field %s is %v: it must be %s", e.Field, e.Value, e.Rule)
}

// UnroutableError is the ErrUnroutable of one topic.
type UnroutableError struct {
	// Topic is the topic of the Publish call, and RoutingKey what it became.
	Topic, RoutingKey string
}

func (e *UnroutableError) Error() string {
	return fmt.Sprintf("%v: topic %q, routing key %q: subscribe to it first, or choose what happens with PublisherConfig.Unroutable",
		ErrUnroutable, e.Topic, e.RoutingKey)
}

// Unwrap lets errors.Is find ErrUnroutable.
func (e *UnroutableError) Unwrap() error { return ErrUnroutable }
