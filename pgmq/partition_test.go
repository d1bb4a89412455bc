package pgmq_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestIntervals(t *testing.T) {
	t.Parallel()
	for got, want := range map[pgmq.Interval]pgmq.Interval{
		pgmq.Messages(10_000):               "10000",
		pgmq.Span(48 * time.Hour):           "2 days",
		pgmq.Span(25 * time.Hour):           "25 hours",
		pgmq.Span(90 * time.Minute):         "5400 seconds",
		pgmq.Span(time.Nanosecond):          "1 seconds",
		pgmq.Span(time.Second + 1):          "2 seconds",
		pgmq.Span(-time.Hour):               "-1 hours",
		pgmq.Messages(math.MinInt64):        "-9223372036854775808",
		pgmq.Span(365 * 24 * 2 * time.Hour): "730 days",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPartitionsRefuse(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	const kinds = `of the same kind as the interval, "10": a number of messages or a span of time`
	for name, tt := range map[string]struct {
		interval, retention pgmq.Interval
		ahead               int
		want                pgmq.ValueError
	}{
		"no interval":       {"", "100", 0, pgmq.ValueError{Name: "interval", Value: `""`, Rule: "more than nothing"}},
		"no messages":       {pgmq.Messages(0), "100", 0, pgmq.ValueError{Name: "interval", Value: `"0"`, Rule: "more than nothing"}},
		"negative messages": {"10", pgmq.Messages(-1), 0, pgmq.ValueError{Name: "retention", Value: `"-1"`, Rule: "more than nothing"}},
		"no time":           {"1 day", pgmq.Span(0), 0, pgmq.ValueError{Name: "retention", Value: `"0 days"`, Rule: "more than nothing"}},
		"negative time":     {pgmq.Span(-time.Second), "1 day", 0, pgmq.ValueError{Name: "interval", Value: `"-1 seconds"`, Rule: "more than nothing"}},
		"messages and time": {"10", "1 day", 0, pgmq.ValueError{Name: "retention", Value: `"1 day"`, Rule: kinds}},
		"negative ahead":    {"10", "100", -1, pgmq.ValueError{Name: "partitions made ahead", Value: -1, Rule: "from 0 to 2147483647"}},
		"too many ahead":    {"10", "100", math.MaxInt32 + 1, pgmq.ValueError{Name: "partitions made ahead", Value: math.MaxInt32 + 1, Rule: "from 0 to 2147483647"}},
	} {
		requireValueError(t, "CreateQueue, "+name, c.CreateQueue(t.Context(), "q", pgmq.Partitioned(tt.interval, tt.retention, tt.ahead)), tt.want)
		requireValueError(t, "ConvertArchive, "+name, c.ConvertArchive(t.Context(), "q", tt.interval, tt.retention, tt.ahead), tt.want)
	}
	both := c.CreateQueue(t.Context(), "q", pgmq.Unlogged(), pgmq.Partitioned("10", "100", 0))
	requireValueError(t, "unlogged", both, pgmq.ValueError{Name: "kind of queue", Value: "unlogged and partitioned", Rule: "one of both"})
	requireNameError(t, errors.Unwrap(c.CreateQueue(t.Context(), "a.b", pgmq.Partitioned("10", "100", 0))),
		pgmq.NameError{Kind: "queue name", Name: "a.b", Rule: "contains a dot, which no name of a partitioned table may"}, pgmq.ErrInvalidQueueName)
	for _, interval := range []pgmq.Interval{"1 month", "00:30:00", "0.5 days", "10"} { // are taken
		if err := c.CreateQueue(t.Context(), "q", pgmq.Partitioned(interval, interval, 0)); !errors.Is(err, pgmq.ErrNilDB) {
			t.Errorf("%q: %v", interval, err)
		}
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "plain", `1`, `2`)
	if _, err := c.Archive(t.Context(), "plain", 1); err != nil {
		t.Fatal(err)
	}
	create := func() error {
		return c.CreateQueue(t.Context(), "ids", pgmq.Partitioned(pgmq.Messages(10), pgmq.Messages(100), 2))
	}
	convert := func() error {
		return c.ConvertArchive(t.Context(), "plain", pgmq.Span(24*time.Hour), pgmq.Span(7*24*time.Hour), 3)
	}
	if offered := values[bool](t, d, `select exists (select from pg_available_extensions where name = 'pg_partman')`); !offered[0] {
		for _, err := range []error{create(), convert()} {
			if err == nil || !strings.Contains(err.Error(), "pg_partman") {
				t.Errorf("without pg_partman: %v", err)
			}
		}
		return
	}
	run(t, d, `create extension pg_partman`)

	for range 2 { // the second time nothing is left to do
		if err := firstOf(create(), convert()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CreateQueue(t.Context(), "time", pgmq.Partitioned(pgmq.Span(24*time.Hour), "1 month", 0)); err != nil {
		t.Fatal(err)
	}
	queues, err := c.Queues(t.Context())
	if err != nil || len(queues) != 3 || !queues[0].Partitioned || queues[1].Partitioned || !queues[2].Partitioned {
		t.Errorf("queues %+v, %v", queues, err)
	}
	config := values[string](t, d, `
		select format('%s: %s, %s, %s', c.parent_table, c.partition_interval::interval, c.retention, c.premake)
		from public.part_config as c
		where c.partition_interval !~ '^[0-9]+$'
		union all
		select format('%s: %s, %s, %s', c.parent_table, c.partition_interval, c.retention, c.premake)
		from public.part_config as c
		where c.partition_interval ~ '^[0-9]+$'
		order by 1`)
	want := []string{
		"pgmq.a_ids: 10, 100, 2", "pgmq.a_plain: 1 day, 7 days, 3", "pgmq.a_time: 1 day, 1 month, 4",
		"pgmq.q_ids: 10, 100, 2", "pgmq.q_time: 1 day, 1 month, 4",
	}
	if strings.Join(config, "\n") != strings.Join(want, "\n") {
		t.Errorf("pg_partman has\n%s\nwant\n%s", strings.Join(config, "\n"), strings.Join(want, "\n"))
	}

	for _, queue := range []string{"ids", "time", "plain"} {
		id, err := c.Send(t.Context(), queue, body(`3`))
		if err != nil {
			t.Fatal(err)
		}
		if archived, err := c.Archive(t.Context(), queue, id); err != nil || len(archived) != 1 {
			t.Errorf("archive of %s: %v, %v", queue, archived, err)
		}
	}
	m, err := c.Metrics(t.Context(), "ids")
	if err != nil || m.DefaultPartition == nil || *m.DefaultPartition != 0 || m.Total != 1 {
		t.Errorf("metrics %+v, %v", m, err)
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
