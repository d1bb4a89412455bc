package watermillpgmq_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// restricted is a pool for the same database, used by a role that has only these rights.
func restricted(t *testing.T, db *pgxpool.Pool, rights ...string) (pool *pgxpool.Pool, role string) {
	t.Helper()
	role = "role_" + strings.ToLower(rand.Text()[:8]) + "_of_" + db.Config().ConnConfig.Database
	name := pgx.Identifier{role}.Sanitize()
	execute(t, db, `create role `+name)
	t.Cleanup(func() { // before the database goes
		for _, sql := range []string{`drop owned by ` + name, `drop role ` + name} {
			_, err := db.Exec(context.WithoutCancel(t.Context()), sql)
			require.NoError(t, err)
		}
	})
	for _, right := range rights {
		execute(t, db, `grant `+right+` to `+name)
	}
	return poolLike(t, db, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["role"] = role }), role
}

// What a role needs on top of the rights that it has is named by the error, and nothing is written.
func TestRights_MissingIsNamed(t *testing.T) {
	t.Parallel()
	publish := func(topology watermillpgmq.Topology) func(*testing.T, *pgxpool.Pool) error {
		return func(t *testing.T, db *pgxpool.Pool) error {
			t.Helper()
			return newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology}).Publish("orders", newMessage("1"))
		}
	}
	subscribe := func(topology watermillpgmq.Topology, topic string) func(*testing.T, *pgxpool.Pool) error {
		return func(t *testing.T, db *pgxpool.Pool) error {
			t.Helper()
			_, err := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: topology}).Subscribe(t.Context(), topic)
			return err
		}
	}
	const usage = `usage on schema pgmq`
	tests := map[string]struct {
		rights []string
		call   func(*testing.T, *pgxpool.Pool) error
		lacks  string
	}{
		"publish to a topic, nothing granted":     {nil, publish(watermillpgmq.TopicTopology{}), "USAGE on schema pgmq"},
		"publish to a queue, nothing granted":     {nil, publish(watermillpgmq.QueueTopology{}), "USAGE on schema pgmq"},
		"publish to a topic without the routes":   {[]string{usage, `insert, select on table pgmq.q_orders`}, publish(watermillpgmq.TopicTopology{}), "SELECT on table pgmq.topic_bindings"},
		"publish to a topic without its queue":    {[]string{usage, `select on table pgmq.topic_bindings`}, publish(watermillpgmq.TopicTopology{}), "INSERT (vt, message, headers) on table pgmq.q_orders"},
		"publish to a queue without it":           {[]string{usage}, publish(watermillpgmq.QueueTopology{}), "INSERT (vt, message, headers) on table pgmq.q_orders"},
		"publish to a queue that one may read":    {[]string{usage, `select on table pgmq.q_orders`}, publish(watermillpgmq.QueueTopology{}), "INSERT (vt, message, headers) on table pgmq.q_orders"},
		"subscribe to a topic, nothing granted":   {nil, subscribe(watermillpgmq.TopicTopology{}, "orders"), "USAGE on schema pgmq"},
		"subscribe to a queue, nothing granted":   {nil, subscribe(watermillpgmq.QueueTopology{}, "orders"), "USAGE on schema pgmq"},
		"subscribe to a topic without the routes": {[]string{usage}, subscribe(watermillpgmq.TopicTopology{}, "orders"), "SELECT on table pgmq.topic_bindings"},
		"subscribe to a new topic": {
			[]string{usage, `select on table pgmq.topic_bindings, pgmq.meta`},
			subscribe(watermillpgmq.TopicTopology{}, "new"), "CREATE on schema pgmq",
		},
		"subscribe to a new queue": {
			[]string{usage, `select on table pgmq.meta`},
			subscribe(watermillpgmq.QueueTopology{}, "new"), "CREATE on schema pgmq",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			bind(t, db, "orders")
			pool, role := restricted(t, db, test.rights...)
			err := test.call(t, pool)
			require.ErrorIs(t, err, pgmq.ErrPermissionDenied)
			var rights *pgmq.RightsError
			require.ErrorAs(t, err, &rights)
			require.Equal(t, role, rights.Role)
			require.Contains(t, rights.Missing, test.lacks)
			require.ErrorContains(t, err, test.lacks)
			require.Zero(t, written(t, db))
			require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.meta`))
		})
	}
}

// With what it needs, and no right to create anything, a role publishes and consumes.
func TestRights_Enough(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	pool, _ := restricted(t, db,
		`usage on schema pgmq`,
		`select on table pgmq.topic_bindings, pgmq.meta`,
		`select, insert, update, delete on table pgmq.q_orders`,
	)
	messages := subscribe(t, newSubscriber(t, pool, watermillpgmq.SubscriberConfig{NackDelay: watermillpgmq.ConstantNackDelay(0)}), "orders")
	require.NoError(t, newPublisher(t, pool, watermillpgmq.PublisherConfig{}).Publish("orders", newMessage("1")))
	receive(t, messages).Nack()
	receive(t, messages).Ack()
	awaitRows(t, db, "orders", 0, 0)
}
