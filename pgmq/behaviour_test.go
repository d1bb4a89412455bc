package pgmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// fixture is what one behaviour is tried with: a client, and the name of a queue of its own, which is not
// created yet. Inside a transaction a server's error ends everything, so errors are provoked in InTx.
type fixture struct {
	*pgmq.Client
	queue string
	db    *pgmqtest.Database
}

// behaviours is the table that runs over all handles.
var behaviours = map[string]func(*testing.T, fixture){
	"queues":                        queuesComeAndGo,
	"send and read":                 sendAndRead,
	"NULL":                          nullIsNotJSON,
	"arrays":                        arraysKeepEveryText,
	"instants":                      instantsAreExact,
	"delays":                        delaysAreExact,
	"bad input":                     badInputIsNotSent,
	"conditions":                    conditions,
	"groups":                        groups,
	"ids":                           idsThatAreNotThere,
	"topics":                        topics,
	"shipments":                     shipments,
	"shipments fail as one":         shipmentsFailAsOne,
	"often":                         statementsManyTimes,
	"commit":                        transactionCommits,
	"roll back":                     transactionRollsBack,
	"nested transactions":           nestedTransactions,
	"panic":                         panicRollsBack,
	"swallowed error":               swallowedErrorIsNoCommit,
	"end of context":                endedContext,
	"end of context in transaction": endedContextInTransaction,
	"deadline while waiting":        deadlineWhileWaiting,
	"errors":                        serverErrors,
}

func queuesComeAndGo(t *testing.T, f fixture) {
	f.create(t)
	require.NoError(t, f.CreateQueue(t.Context(), f.queue), "again")
	require.NoError(t, f.CreateQueue(t.Context(), f.queue+"u", pgmq.Unlogged()))

	all, err := f.Queues(t.Context())
	require.NoError(t, err)
	at := slices.IndexFunc(all, func(q pgmq.Queue) bool { return q.Name == f.queue })
	require.GreaterOrEqual(t, at, 0)
	require.False(t, all[at].Unlogged)
	require.WithinDuration(t, time.Now(), all[at].CreatedAt, time.Minute)
	require.True(t, slices.ContainsFunc(all, func(q pgmq.Queue) bool { return q.Name == f.queue+"u" && q.Unlogged }))

	f.send(t, "1", "2", "3")
	metrics, err := f.Metrics(t.Context(), f.queue)
	require.NoError(t, err)
	require.Equal(t, f.queue, metrics.Queue)
	require.EqualValues(t, 3, metrics.Total)

	n, err := f.Purge(t.Context(), f.queue)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.Empty(t, f.bodies(t))

	dropped, err := f.DropQueue(t.Context(), f.queue)
	require.NoError(t, err)
	require.True(t, dropped)
	dropped, err = f.DropQueue(t.Context(), f.queue)
	require.NoError(t, err)
	require.False(t, dropped)

	// What was prepared for the old table must not be in the way of a new one.
	f.create(t)
	f.send(t, "4")
	require.Equal(t, []string{"4"}, f.bodies(t))
}

func sendAndRead(t *testing.T, f fixture) {
	f.create(t)
	before := time.Now()
	id, err := f.Send(t.Context(), f.queue, pgmq.Outgoing{
		Body:    json.RawMessage(`{"text": "a \"quoted\" \\ 'ü' \u0001 $1 ? ; --"}`),
		Headers: json.RawMessage(`{"h": [1, null]}`),
	})
	require.NoError(t, err)
	require.EqualValues(t, 1, id)

	msgs, err := f.Read(t.Context(), f.queue, 90*time.Second)
	require.NoError(t, err)
	require.Len(t, msgs, 1)
	m := msgs[0]
	require.Equal(t, id, m.ID)
	require.Equal(t, 1, m.ReadCount)
	require.JSONEq(t, `{"text": "a \"quoted\" \\ 'ü' \u0001 $1 ? ; --"}`, string(m.Body))
	require.JSONEq(t, `{"h": [1, null]}`, string(m.Headers))
	require.WithinDuration(t, before, m.EnqueuedAt, time.Minute)
	require.WithinDuration(t, before, m.LastReadAt, time.Minute)
	require.WithinDuration(t, before.Add(90*time.Second), m.VisibleAt, time.Minute)

	msgs, err = f.Read(t.Context(), f.queue, time.Second)
	require.NoError(t, err)
	require.Empty(t, msgs)
}

func nullIsNotJSON(t *testing.T, f fixture) {
	f.create(t)
	_, err := f.SendBatch(t.Context(), f.queue, []pgmq.Outgoing{
		{},
		{Body: json.RawMessage(`null`), Headers: json.RawMessage(`{}`)},
		{Body: json.RawMessage(`"NULL"`)},
	})
	require.NoError(t, err)
	msgs, err := f.Pop(t.Context(), f.queue, 5)
	require.NoError(t, err)
	require.Len(t, msgs, 3)
	require.Nil(t, msgs[0].Body)
	require.Nil(t, msgs[0].Headers)
	require.Equal(t, `null`, string(msgs[1].Body))
	require.Equal(t, `{}`, string(msgs[1].Headers))
	require.Equal(t, `"NULL"`, string(msgs[2].Body))
	require.True(t, msgs[0].LastReadAt.IsZero() || !msgs[0].LastReadAt.Before(msgs[0].EnqueuedAt))
}

func arraysKeepEveryText(t *testing.T, f fixture) {
	f.create(t)
	ids, err := f.SendBatch(t.Context(), f.queue, nil)
	require.NoError(t, err)
	require.Empty(t, ids)

	var sent []pgmq.Outgoing
	var want []string
	for _, s := range []string{
		``, ` `, `"`, `\`, `\\"`, `{`, `}`, `{}`, `,`, `'`, `NULL`, `null`, "\n\t\r", "\u007f", `ü€𝄞`, `$1`, `?`, `--`, `/*`, `E'\x'`,
	} {
		body, err := json.Marshal(s)
		require.NoError(t, err)
		// Whitespace around values is allowed, and gone when they come back.
		sent = append(sent, pgmq.Outgoing{Body: slices.Concat([]byte(" \n"), body)})
		want = append(want, s)
	}
	ids, err = f.SendBatch(t.Context(), f.queue, sent)
	require.NoError(t, err)
	require.Len(t, ids, len(sent))
	require.True(t, slices.IsSorted(ids))

	msgs, err := f.Read(t.Context(), f.queue, 0, pgmq.Limit(len(sent)))
	require.NoError(t, err)
	var got []string
	for i := range msgs {
		var s string
		require.NoError(t, json.Unmarshal(msgs[i].Body, &s))
		got = append(got, s)
	}
	require.Equal(t, want, got)
}

// Postgres keeps microseconds, and so does everything on the way there and back.
func instantsAreExact(t *testing.T, f fixture) {
	f.create(t)
	for _, at := range []time.Time{
		time.Date(2100, 2, 28, 23, 59, 59, 999_999_000, time.UTC),
		time.Date(2100, 7, 1, 12, 0, 0, 1000, time.FixedZone("", -(9*3600+30*60))),
		time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		time.Date(1970, 1, 1, 0, 0, 0, 123_456_000, time.UTC),
	} {
		id, err := f.Send(t.Context(), f.queue, pgmq.Outgoing{}, pgmq.VisibleAt(time.Now().Add(time.Hour)))
		require.NoError(t, err)
		msgs, err := f.SetVisibility(t.Context(), f.queue, pgmq.VisibleAt(at), id)
		require.NoError(t, err)
		require.Len(t, msgs, 1)
		require.True(t, at.Equal(msgs[0].VisibleAt), "%v came back as %v", at, msgs[0].VisibleAt)

		ids, err := f.SendBatch(t.Context(), f.queue, []pgmq.Outgoing{{}}, pgmq.VisibleAt(at))
		require.NoError(t, err)
		msgs, err = f.SetVisibility(t.Context(), f.queue, pgmq.VisibleAt(at), ids...)
		require.NoError(t, err)
		require.True(t, at.Equal(msgs[0].VisibleAt))
	}
}

func delaysAreExact(t *testing.T, f fixture) {
	f.create(t)
	id, err := f.Send(t.Context(), f.queue, pgmq.Outgoing{}, pgmq.VisibleIn(time.Hour))
	require.NoError(t, err)
	require.Empty(t, f.bodies(t))
	for _, d := range []time.Duration{time.Microsecond, 1500 * time.Millisecond, 1000 * time.Hour, 250 * 365 * 24 * time.Hour} {
		before := time.Now()
		msgs, err := f.SetVisibility(t.Context(), f.queue, pgmq.VisibleIn(d), id)
		require.NoError(t, err)
		require.Len(t, msgs, 1)
		require.WithinDuration(t, before.Add(d), msgs[0].VisibleAt, 30*time.Second)
	}
	msgs, err := f.SetVisibility(t.Context(), f.queue, pgmq.VisibleIn(0), id)
	require.NoError(t, err)
	require.Len(t, msgs, 1)
	require.Len(t, f.bodies(t), 1, "visible at once")
}

// badInputIsNotSent: in a transaction the next statement would fail if it was.
func badInputIsNotSent(t *testing.T, f fixture) {
	f.create(t)
	for name, fail := range map[string]func() error{
		"delay": func() error {
			_, err := f.Send(t.Context(), f.queue, pgmq.Outgoing{}, pgmq.VisibleIn(-1))
			return err
		},
		"visibility": func() error {
			_, err := f.SetVisibility(t.Context(), f.queue, pgmq.VisibleIn(-time.Hour), 1)
			return err
		},
		"timeout": func() error {
			_, err := f.Read(t.Context(), f.queue, -time.Second)
			return err
		},
		"body": func() error {
			_, err := f.Send(t.Context(), f.queue, pgmq.Outgoing{Body: json.RawMessage(`{`)})
			return err
		},
		"headers": func() error {
			_, err := f.SendBatch(t.Context(), f.queue, []pgmq.Outgoing{{}, {Headers: json.RawMessage(`[]`)}})
			return err
		},
	} {
		var value *pgmq.ValueError
		require.ErrorAs(t, fail(), &value, name)
	}
	require.Empty(t, f.bodies(t))
}

func conditions(t *testing.T, f fixture) {
	f.create(t)
	f.send(t, `{"a": "it's \"q\" \\ ü"}`, `{"a": 1, "b": 2}`, `{"a": 1}`)
	msgs, err := f.Read(t.Context(), f.queue, 0, pgmq.Limit(10), pgmq.Where(json.RawMessage(`{"a": "it's \"q\" \\ ü"}`)))
	require.NoError(t, err)
	require.Equal(t, []int64{1}, idsOf(msgs))
	msgs, err = f.Read(t.Context(), f.queue, 0, pgmq.Limit(10), pgmq.Where(json.RawMessage(`{"a": 1}`)))
	require.NoError(t, err)
	require.Equal(t, []int64{2, 3}, idsOf(msgs))
}

func groups(t *testing.T, f fixture) {
	f.create(t)
	var sent []pgmq.Outgoing
	for _, group := range []string{"a", "a", "b"} {
		sent = append(sent, pgmq.Outgoing{Headers: json.RawMessage(fmt.Sprintf(`{%q: %q}`, pgmq.GroupHeader, group))})
	}
	_, err := f.SendBatch(t.Context(), f.queue, sent)
	require.NoError(t, err)
	for _, c := range []struct {
		strategy pgmq.GroupStrategy
		want     []int64
	}{{pgmq.Fill, []int64{1, 2, 3}}, {pgmq.RoundRobin, []int64{1, 3, 2}}, {pgmq.Head, []int64{1, 3}}} {
		msgs, err := f.Read(t.Context(), f.queue, 0, pgmq.Limit(5), pgmq.Grouped(c.strategy))
		require.NoError(t, err)
		require.Equal(t, c.want, idsOf(msgs))
	}
}

func idsThatAreNotThere(t *testing.T, f fixture) {
	f.create(t)
	f.send(t, "1", "2", "3", "4")
	none := []func(context.Context, string, ...int64) ([]int64, error){f.Delete, f.Archive}
	for _, settle := range none {
		ids, err := settle(t.Context(), f.queue)
		require.NoError(t, err)
		require.Empty(t, ids)
		ids, err = settle(t.Context(), f.queue, -1, 0, math.MaxInt64, math.MinInt64)
		require.NoError(t, err)
		require.Empty(t, ids)
	}
	ids, err := f.Delete(t.Context(), f.queue, 99, 2, 2, 1)
	require.NoError(t, err)
	require.ElementsMatch(t, []int64{1, 2}, ids)
	ids, err = f.Archive(t.Context(), f.queue, 3, 1)
	require.NoError(t, err)
	require.Equal(t, []int64{3}, ids)
	msgs, err := f.SetVisibility(t.Context(), f.queue, pgmq.VisibleIn(0), 1, 4)
	require.NoError(t, err)
	require.Equal(t, []int64{4}, idsOf(msgs))
	require.Equal(t, []string{"4"}, f.bodies(t))
}

func topics(t *testing.T, f fixture) {
	f.create(t)
	key := fmt.Sprintf("%d.created", queues.Add(1))
	require.NoError(t, f.BindTopic(t.Context(), key, f.queue))
	require.NoError(t, f.BindTopic(t.Context(), key, f.queue), "again")

	bindings, err := f.Bindings(t.Context(), f.queue)
	require.NoError(t, err)
	require.Len(t, bindings, 1)
	require.Equal(t, key, bindings[0].Pattern)
	require.Equal(t, f.queue, bindings[0].Queue)
	routes, err := f.Routes(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, bindings, routes)

	sent, err := f.SendTopic(t.Context(), key, body("1"))
	require.NoError(t, err)
	require.Equal(t, []pgmq.Delivery{{Queue: f.queue, ID: 1}}, sent)
	sent, err = f.SendBatchTopic(t.Context(), key, []pgmq.Outgoing{body("2"), body("3")}, pgmq.VisibleIn(0))
	require.NoError(t, err)
	require.Len(t, sent, 2)
	sent, err = f.SendTopic(t.Context(), key+".nobody", body("4"))
	require.NoError(t, err)
	require.Empty(t, sent)
	require.Equal(t, []string{"1", "2", "3"}, f.bodies(t))

	unbound, err := f.UnbindTopic(t.Context(), key, f.queue)
	require.NoError(t, err)
	require.True(t, unbound)
	unbound, err = f.UnbindTopic(t.Context(), key, f.queue)
	require.NoError(t, err)
	require.False(t, unbound)
	bindings, err = f.Bindings(t.Context(), f.queue, `"`, `\`, ``)
	require.NoError(t, err)
	require.Empty(t, bindings)
}

func shipments(t *testing.T, f fixture) {
	f.create(t)
	key := fmt.Sprintf("%d.shipped", queues.Add(1))
	require.NoError(t, f.BindTopic(t.Context(), key, f.queue))
	fallback := newQueueName()
	require.NoError(t, f.CreateQueue(t.Context(), fallback))

	none, err := f.SendMany(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
	got, err := f.SendMany(t.Context(), []pgmq.Shipment{
		{Queue: f.queue, Messages: []pgmq.Outgoing{body("1"), {Headers: json.RawMessage(`{"h": 1}`)}}, Notify: true},
		{RoutingKey: key, Messages: []pgmq.Outgoing{body("3")}},
		{RoutingKey: key, Fallback: fallback, Messages: []pgmq.Outgoing{body("4")}},
		{RoutingKey: key + ".nobody", Messages: []pgmq.Outgoing{body("5")}},
		{RoutingKey: key + ".nobody", Fallback: fallback, Messages: []pgmq.Outgoing{body("6")}, Notify: true},
		{Queue: f.queue, Messages: []pgmq.Outgoing{body("7")}, Visibility: pgmq.VisibleIn(time.Hour)},
	})
	require.NoError(t, err)
	require.Equal(t, [][]string{{f.queue}, {f.queue}, {f.queue}, nil, {fallback}, {f.queue}}, got)
	require.Equal(t, []string{"1", "", "3", "4"}, f.bodies(t))
	f.queue = fallback
	require.Equal(t, []string{"6"}, f.bodies(t))

	require.NoError(t, f.Notify(t.Context(), f.queue, fallback))
}

func shipmentsFailAsOne(t *testing.T, f fixture) {
	f.create(t)
	missing := newQueueName()
	for range 2 { // not prepared, prepared
		err := f.InTx(t.Context(), func(c *pgmq.Client) error {
			_, err := c.SendMany(t.Context(), []pgmq.Shipment{
				{Queue: f.queue, Messages: []pgmq.Outgoing{body("1")}},
				{Queue: missing, Messages: []pgmq.Outgoing{body("2")}},
				{Queue: f.queue, Messages: []pgmq.Outgoing{body("3")}},
			})
			return err
		})
		require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
		var failed *pgmq.Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, missing, failed.Queue)
		require.Empty(t, f.bodies(t))
	}
	_, err := f.SendMany(t.Context(), []pgmq.Shipment{
		{Queue: f.queue, Messages: []pgmq.Outgoing{body("1")}},
		{Queue: f.queue, Messages: []pgmq.Outgoing{body("{")}},
	})
	var value *pgmq.ValueError
	require.ErrorAs(t, err, &value)
	require.Empty(t, f.bodies(t))
}

// statementsManyTimes: drivers and server treat a statement differently after some executions.
func statementsManyTimes(t *testing.T, f fixture) {
	f.create(t)
	var want []string
	for i := range 12 {
		_, err := f.Send(t.Context(), f.queue, body(fmt.Sprint(i)))
		require.NoError(t, err)
		want = append(want, fmt.Sprint(i))
		require.Equal(t, want, f.bodies(t))
	}
}

func serverErrors(t *testing.T, f fixture) {
	for name, call := range map[string]func(*pgmq.Client) error{
		"send":    func(c *pgmq.Client) error { _, err := c.Send(t.Context(), f.queue, body("1")); return err },
		"read":    func(c *pgmq.Client) error { _, err := c.Read(t.Context(), f.queue, 0); return err },
		"pop":     func(c *pgmq.Client) error { _, err := c.Pop(t.Context(), f.queue, 1); return err },
		"delete":  func(c *pgmq.Client) error { _, err := c.Delete(t.Context(), f.queue, 1); return err },
		"archive": func(c *pgmq.Client) error { _, err := c.Archive(t.Context(), f.queue, 1); return err },
		"metrics": func(c *pgmq.Client) error { _, err := c.Metrics(t.Context(), f.queue); return err },
		"purge":   func(c *pgmq.Client) error { _, err := c.Purge(t.Context(), f.queue); return err },
		"set_vt": func(c *pgmq.Client) error {
			_, err := c.SetVisibility(t.Context(), f.queue, pgmq.VisibleIn(0), 1)
			return err
		},
	} {
		err := f.InTx(t.Context(), call)
		require.ErrorIs(t, err, pgmq.ErrQueueNotFound, name)
		var failed *pgmq.Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, f.queue, failed.Queue)
		require.Equal(t, name, failed.Op)
		var server interface{ SQLState() string }
		require.ErrorAs(t, err, &server, "the driver's own error is still there")
		require.Equal(t, "42P01", server.SQLState())
	}
	err := f.InTx(t.Context(), func(c *pgmq.Client) error { return c.BindTopic(t.Context(), "a.b", f.queue) })
	require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
	f.create(t) // everything goes on
}

func (f fixture) create(t *testing.T) {
	t.Helper()
	require.NoError(t, f.CreateQueue(t.Context(), f.queue))
}

func (f fixture) send(t *testing.T, bodies ...string) {
	t.Helper()
	var msgs []pgmq.Outgoing
	for _, b := range bodies {
		msgs = append(msgs, body(b))
	}
	_, err := f.SendBatch(t.Context(), f.queue, msgs)
	require.NoError(t, err)
}

// bodies are those of the visible messages, which stay visible.
func (f fixture) bodies(t *testing.T) []string {
	t.Helper()
	msgs, err := f.Read(t.Context(), f.queue, 0, pgmq.Limit(100))
	require.NoError(t, err)
	var bodies []string
	for i := range msgs {
		bodies = append(bodies, string(msgs[i].Body))
	}
	return bodies
}

func body(text string) pgmq.Outgoing { return pgmq.Outgoing{Body: json.RawMessage(text)} }

func idsOf(msgs []pgmq.Message) []int64 {
	var ids []int64
	for i := range msgs {
		ids = append(ids, msgs[i].ID)
	}
	return ids
}
