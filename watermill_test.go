package watermillpgmq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// mode is one way to use the adapter, for Watermill's universal suite.
type mode struct {
	publisher  watermillpgmq.PublisherConfig
	subscriber watermillpgmq.SubscriberConfig
	features   tests.Features
}

// inOrder are the features of a subscriber that handles one message at a time. ExactlyOnceDelivery is not
// claimed: a lease can expire.
var inOrder = tests.Features{
	ConsumerGroups:                      true,
	GuaranteedOrder:                     true,
	GuaranteedOrderWithSingleSubscriber: true,
	Persistent:                          true,
}

func topics() mode {
	return mode{features: inOrder}
}

func queues() mode {
	m := mode{features: inOrder}
	m.features.ConsumerGroups = false
	m.publisher.Topology = watermillpgmq.QueueTopology{GenerateQueueName: shortName}
	m.subscriber.Topology = watermillpgmq.QueueTopology{GenerateQueueName: shortName}
	return m
}

// shortName fits the suite's topics, some of which are longer than a queue name may be.
func shortName(params watermillpgmq.QueueNameParams) (string, error) {
	return watermillpgmq.QueueName(params.Topic, ""), nil
}

func concurrent() mode {
	m := mode{features: inOrder}
	m.features.GuaranteedOrder = false
	m.features.GuaranteedOrderWithSingleSubscriber = false
	m.subscriber.Concurrency = 16
	return m
}

func archive() mode {
	m := topics()
	m.subscriber.ArchiveOnAck = true
	return m
}

// ordered keeps the order of each group with any number of subscribers. The suite expects it for messages of
// the same payload.
func ordered() mode {
	m := mode{features: inOrder}
	m.features.GuaranteedOrderWithSingleSubscriber = false
	m.publisher.GroupKey = func(params watermillpgmq.GroupKeyParams) (string, error) {
		return string(params.Message.Payload), nil
	}
	m.subscriber.Ordering = watermillpgmq.PerGroup
	return m
}

func exact() mode {
	m := topics()
	m.publisher.Marshaler = watermillpgmq.ExactMarshaler{}
	m.subscriber.Unmarshaler = watermillpgmq.ExactMarshaler{}
	return m
}

func TestPubSub_Topics(t *testing.T)      { runSuite(t, topics(), tests.TestPubSub) }
func TestPubSub_Queues(t *testing.T)      { runSuite(t, queues(), tests.TestPubSub) }
func TestPubSub_Concurrency(t *testing.T) { runSuite(t, concurrent(), tests.TestPubSub) }
func TestPubSub_Archive(t *testing.T)     { runSuite(t, archive(), tests.TestPubSub) }
func TestPubSub_Ordered(t *testing.T)     { runSuite(t, ordered(), tests.TestPubSub) }
func TestPubSub_Exact(t *testing.T)       { runSuite(t, exact(), tests.TestPubSub) }

// runSuite runs the suite, or its stress mode, on a server of its own, which the suite restarts. Not under
// the race detector: the suite's test of reconnecting has a race in itself.
func runSuite(t *testing.T, m mode, suite func(*testing.T, tests.Features, tests.PubSubConstructor, tests.ConsumerGroupPubSubConstructor)) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	db := server.Database(t).Pool
	if !raceEnabled {
		m.features.RestartServiceCommand = server.RestartCommand()
	}
	suite(t, m.features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return m.create(t, db, "")
	}, func(t *testing.T, consumerGroup string) (message.Publisher, message.Subscriber) {
		return m.create(t, db, consumerGroup)
	})
}

// create makes what the suite asks for, and closes it at last: the suite itself leaves some open. It nacks
// hundreds of times in a row, and leaves messages un-acked when it closes, so both waits are short here.
func (m mode) create(t testing.TB, db *pgxpool.Pool, consumerGroup string) (message.Publisher, message.Subscriber) {
	t.Helper()
	logger := watermill.NopLogger{}
	publisher, err := watermillpgmq.NewPublisher(db, m.publisher, logger)
	require.NoError(t, err)
	cfg := m.subscriber
	cfg.ConsumerGroup = consumerGroup
	cfg.NackDelay = watermillpgmq.ConstantNackDelay(10 * time.Millisecond)
	cfg.CloseTimeout = 100 * time.Millisecond
	subscriber, err := watermillpgmq.NewSubscriber(db, cfg, logger)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, publisher.Close())
		require.NoError(t, subscriber.Close())
	})
	if strings.Contains(t.Name(), "TestReconnect") {
		published := &noting{noted: map[string]chan struct{}{}}
		return notingPublisher{publisher, published}, notingSubscriber{subscriber, published}
	}
	return publisher, subscriber
}

// BenchmarkSubscriber is the suite's benchmark: messages are published one by one while they are received.
func BenchmarkSubscriber(b *testing.B) {
	for name, m := range map[string]mode{"topics": topics(), "queues": queues(), "concurrency": concurrent()} {
		b.Run(name, func(b *testing.B) {
			db := pgmqtest.New(b, pgmqtest.Durable()).Pool
			tests.BenchSubscriber(b, func(int) (message.Publisher, message.Subscriber) {
				return m.create(b, db, "")
			})
		})
	}
}
