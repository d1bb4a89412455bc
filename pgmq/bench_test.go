package pgmq_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// What the client costs over the same statement by bare pgx, on one connection: "client/pgx" is the ratio of the
// medians. Both take turns, so that what else goes on concerns them alike.
func BenchmarkSend(b *testing.B) { benchmarkAgainstPgx(b, 1) }

// BenchmarkSendBatch is BenchmarkSend for batches of 1,000.
func BenchmarkSendBatch(b *testing.B) { benchmarkAgainstPgx(b, 1000) }

// benchmarkAgainstPgx sends batches of messages of 256 bytes.
func benchmarkAgainstPgx(b *testing.B, batch int) {
	config, err := pgx.ParseConfig(pgmqtest.New(b).DSN)
	require.NoError(b, err)
	last := &lastStatement{}
	config.Tracer = last
	conn, err := pgx.ConnectConfig(b.Context(), config)
	require.NoError(b, err)
	defer conn.Close(context.Background())
	client := pgmq.New(conn)
	require.NoError(b, client.CreateQueue(b.Context(), "bench"))
	msgs := slices.Repeat([]pgmq.Outgoing{{Body: bytes256()}}, batch)

	byClient := &way{name: "client", send: func(ctx context.Context) (err error) {
		if batch == 1 {
			_, err = client.Send(ctx, "bench", msgs[0])
		} else {
			_, err = client.SendBatch(ctx, "bench", msgs)
		}
		return err
	}}
	byClient.turn(b) // and is prepared
	byClient.took = nil
	statement, args := last.sql, last.args
	byPgx := &way{name: "pgx", send: func(ctx context.Context) error {
		rows, err := conn.Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err == nil && len(ids) != batch {
			err = fmt.Errorf("%d ids", len(ids))
		}
		return err
	}}
	ways := []*way{byClient, byPgx}

	for i := 0; b.Loop(); i++ {
		if i*batch%20_000 == 0 { // the table stays small, or its growth would be measured
			b.StopTimer()
			_, err := client.Purge(b.Context(), "bench")
			require.NoError(b, err)
			b.StartTimer()
		}
		for j := range ways {
			ways[(i+j)%len(ways)].turn(b)
		}
	}
	for _, w := range ways {
		b.ReportMetric(float64(w.median().Nanoseconds())/float64(batch), w.name+"-ns/msg")
		b.ReportMetric(testing.AllocsPerRun(10, func() { w.turn(b) })/float64(batch), w.name+"-allocs/msg")
	}
	b.ReportMetric(float64(byClient.median())/float64(byPgx.median()), "client/pgx")
}

// lastStatement is a tracer of pgx: the client's statement is executed by pgx just as it is.
type lastStatement struct {
	sql  string
	args []any
}

func (l *lastStatement) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	l.sql, l.args = data.SQL, data.Args
	return ctx
}

func (l *lastStatement) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// way is one way to send.
type way struct {
	name string
	send func(context.Context) error
	took []time.Duration
}

func (w *way) turn(b *testing.B) {
	b.Helper()
	start := time.Now()
	if err := w.send(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.took = append(w.took, time.Since(start))
}

func (w *way) median() time.Duration { return slices.Sorted(slices.Values(w.took))[len(w.took)/2] }

// bytes256 is a JSON document of this size.
func bytes256() []byte {
	return fmt.Appendf(nil, `{"text": "%s"}`, bytes.Repeat([]byte("x"), 256-len(`{"text": ""}`)))
}
