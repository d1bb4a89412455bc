package watermillpgmq_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// With what pgmq.Grant gives, one role publishes and another one consumes, each with its own half of the
// rights, whatever the configuration.
func TestGrant_PublisherAndSubscriber(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		publish  func(queue string) pgmq.Access
		topology watermillpgmq.Topology
		change   func(*watermillpgmq.SubscriberConfig)
	}{
		"topics": {
			publish: func(string) pgmq.Access { return pgmq.PublishTopics("orders") },
		},
		"queues": {
			publish:  func(queue string) pgmq.Access { return pgmq.Publish(queue) },
			topology: watermillpgmq.QueueTopology{},
		},
		"archive": {
			publish: func(string) pgmq.Access { return pgmq.PublishTopics() },
			change:  func(cfg *watermillpgmq.SubscriberConfig) { cfg.ArchiveOnAck = true },
		},
		"per group": {
			publish: func(string) pgmq.Access { return pgmq.PublishTopics("orders") },
			change:  func(cfg *watermillpgmq.SubscriberConfig) { cfg.Ordering = watermillpgmq.PerGroup },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			bind(t, db, "orders")
			owner := pgmq.New(db)
			// As it is after somebody enabled it, for other clients of the queue.
			require.NoError(t, owner.EnableNotify(t.Context(), "orders", 0))
			publishing, publisher := restricted(t, db)
			consuming, consumer := restricted(t, db)
			require.NoError(t, owner.Grant(t.Context(), publisher, test.publish("orders")))
			require.NoError(t, owner.Grant(t.Context(), consumer, pgmq.Consume("orders")))

			cfg := watermillpgmq.SubscriberConfig{Topology: test.topology, NackDelay: watermillpgmq.ConstantNackDelay(0)}
			if test.change != nil {
				test.change(&cfg)
			}
			pub := newPublisher(t, publishing, watermillpgmq.PublisherConfig{Topology: test.topology})
			messages := subscribe(t, newSubscriber(t, consuming, cfg), "orders")
			require.NoError(t, pub.Publish("orders", newMessage("1")))
			tx, err := publishing.Begin(t.Context())
			require.NoError(t, err)
			inTx := newMessage("2")
			inTx.SetContext(watermillpgmq.WithTx(t.Context(), tx))
			require.NoError(t, pub.Publish("orders", inTx))
			require.NoError(t, tx.Commit(t.Context()))

			receive(t, messages).Nack()
			receive(t, messages).Ack()
			receive(t, messages).Ack()
			awaitRows(t, db, "orders", 0, 0)
			archived := 0
			if cfg.ArchiveOnAck {
				archived = 2
			}
			require.Equal(t, archived, scalar[int](t, db, `select count(*) from pgmq.a_orders`))

			// Not the other's half.
			require.ErrorIs(t, newPublisher(t, consuming, watermillpgmq.PublisherConfig{Topology: test.topology}).
				Publish("orders", newMessage("3")), pgmq.ErrPermissionDenied)
			for _, pool := range []*pgxpool.Pool{publishing, consuming} {
				_, err := pool.Exec(t.Context(), `select message from pgmq.a_orders`)
				require.ErrorContains(t, err, "42501")
			}
			_, err = publishing.Exec(t.Context(), `select message from pgmq.q_orders`)
			require.ErrorContains(t, err, "42501")
			_, err = consuming.Exec(t.Context(), `drop table pgmq.q_orders`)
			require.ErrorContains(t, err, "42501")
		})
	}
}
