package pgmq_test

import (
	"context"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// everyCall calls what a Client has for PGMQ's functions, in all forms that send different statements. The
// queue exists and holds some messages.
var everyCall = map[string]func(ctx context.Context, c *pgmq.Client, queue string) error{
	"CreateQueue": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.CreateQueue(ctx, queue+"2")
	},
	"CreateQueue, unlogged": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.CreateQueue(ctx, queue+"3", pgmq.Unlogged())
	},
	"CreateQueue, partitioned": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.CreateQueue(ctx, queue+"4", pgmq.Partitioned(pgmq.Messages(10), pgmq.Messages(100), 2))
	},
	"Send": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Send(ctx, queue, pgmq.Outgoing{Body: []byte(`1`)})
		return err
	},
	"SendBatchTopic": func(ctx context.Context, c *pgmq.Client, _ string) error {
		_, err := c.SendBatchTopic(ctx, "a.b", []pgmq.Outgoing{{Body: []byte(`1`)}})
		return err
	},
	"MetricsAll": func(ctx context.Context, c *pgmq.Client, _ string) error { _, err := c.MetricsAll(ctx); return err },
	"Queues":     func(ctx context.Context, c *pgmq.Client, _ string) error { _, err := c.Queues(ctx); return err },
	"Routes":     func(ctx context.Context, c *pgmq.Client, _ string) error { _, err := c.Routes(ctx, "a.b"); return err },
	"Bindings":   func(ctx context.Context, c *pgmq.Client, q string) error { _, err := c.Bindings(ctx, q); return err },
	"NotifyThrottles": func(ctx context.Context, c *pgmq.Client, _ string) error {
		_, err := c.NotifyThrottles(ctx)
		return err
	},
	"IndexGroups": func(ctx context.Context, c *pgmq.Client, _ string) error { return c.IndexGroups(ctx) },
	"DropQueue": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.DropQueue(ctx, queue)
		return err
	},
}

// exempt are the functions of PGMQ that no method calls, and why.
var exempt = map[string]string{
	"acquire_queue_lock":     "what other functions use among themselves",
	"format_table_name":      "what other functions use among themselves",
	"notify_queue_listeners": "the function of a trigger",
	"create_non_partitioned": "create does the same",
	"send_topic":             "it only counts: SendTopic says where the message went, by send_batch_topic",
	"validate_queue_name":    "ValidateQueueName needs no server; TestNamesAgreeWithServer holds it to this function",
	"validate_routing_key":   "ValidateRoutingKey needs no server; TestNamesAgreeWithServer holds it to this function",
	"validate_topic_pattern": "ValidateTopicPattern needs no server; TestNamesAgreeWithServer holds it to this function",
}

// Every function of PGMQ has a method that calls it. Which ones there are says the catalog, and which are
// called the statements that arrive.
func TestEveryFunctionHasAMethod(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	called := &calledFunctions{names: map[string]bool{}}
	config, err := pgxpool.ParseConfig(d.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = called
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c := pgmq.New(pool)

	tolerated := "CreateQueue, partitioned" // the server may lack pg_partman
	for _, calls := range []map[string]func(context.Context, *pgmq.Client, string) error{onQueueCalls, everyCall} {
		for name, call := range calls {
			queue := "covers"
			if _, err := c.DropQueue(t.Context(), queue); err != nil {
				t.Fatal(err)
			}
			fillQueue(t, c, queue)
			if err := call(t.Context(), c, queue); err != nil && name != tolerated && !strings.HasPrefix(name, "ConvertArchive") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}

	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, function := range values[string](t, d, `
		select distinct p.proname::text
		from pg_catalog.pg_proc as p
		where p.pronamespace = 'pgmq'::regnamespace and p.proname !~ '^_'
		order by 1`) {
		if reason, ok := exempt[function]; ok == called.names[function] {
			t.Errorf("pgmq.%s: called by a method: %v, exempt: %v %s", function, called.names[function], ok, reason)
		}
		if !regexp.MustCompile(`(?m)^//\s.*\b` + function + `\b`).Match(doc) {
			t.Errorf("pgmq.%s is not in the table of doc.go", function)
		}
	}
}

// What the documentation calls a method is one.
func TestDocumentationNamesMethods(t *testing.T) {
	t.Parallel()
	client := reflect.TypeFor[*pgmq.Client]()
	for _, file := range []string{"doc.go", "../docs/pgmq-py.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		calls := regexp.MustCompile(`client\.([A-Z]\w*)`).FindAllSubmatch(text, -1)
		if len(calls) < 5 {
			t.Errorf("%s calls %d methods", file, len(calls))
		}
		for _, call := range calls {
			if _, ok := client.MethodByName(string(call[1])); !ok {
				t.Errorf("%s: a Client has no %s", file, call[1])
			}
		}
	}
}

// calledFunctions collects the names of PGMQ's functions out of the statements of a connection.
type calledFunctions struct {
	mu    sync.Mutex
	names map[string]bool
}

var callOf = regexp.MustCompile(`\bpgmq\.(\w+)\s*\(`)

func (f *calledFunctions) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, call := range callOf.FindAllStringSubmatch(data.SQL, -1) {
		f.names[call[1]] = true
	}
	return ctx
}

func (*calledFunctions) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// onQueueCalls calls what a Client does to a queue that has to be there.
var onQueueCalls = map[string]func(ctx context.Context, c *pgmq.Client, queue string) error{
	"Send": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Send(ctx, queue, pgmq.Outgoing{Body: []byte(`1`)}, pgmq.VisibleIn(time.Second))
		return err
	},
	"SendBatch": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.SendBatch(ctx, queue, []pgmq.Outgoing{{Body: []byte(`1`)}, {Body: []byte(`2`)}})
		return err
	},
	"Read":                   reading(),
	"Read, Where":            reading(pgmq.Where([]byte(`{"n": 1}`))),
	"Read, Fill":             reading(pgmq.Grouped(pgmq.Fill)),
	"Read, RoundRobin":       reading(pgmq.Grouped(pgmq.RoundRobin)),
	"Read, Head":             reading(pgmq.Grouped(pgmq.Head)),
	"Read, Poll":             reading(pgmq.Poll(time.Minute, time.Second)),
	"Read, ServerPoll":       reading(pgmq.ServerPoll(time.Minute, time.Second)),
	"Read, ServerPoll Where": reading(pgmq.ServerPoll(time.Minute, time.Second), pgmq.Where([]byte(`{"n": 1}`))),
	"Read, ServerPoll Fill":  reading(pgmq.ServerPoll(time.Minute, time.Second), pgmq.Grouped(pgmq.Fill)),
	"Read, ServerPoll RR":    reading(pgmq.ServerPoll(time.Minute, time.Second), pgmq.Grouped(pgmq.RoundRobin)),
	"Read, ServerPoll Head":  reading(pgmq.ServerPoll(time.Minute, time.Second), pgmq.Grouped(pgmq.Head)),
	"Pop": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Pop(ctx, queue, 1)
		return err
	},
	"Pop, two": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Pop(ctx, queue, 2)
		return err
	},
	"SetVisibility": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.SetVisibility(ctx, queue, pgmq.VisibleIn(time.Second), 1)
		return err
	},
	"Delete": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Delete(ctx, queue, 1)
		return err
	},
	"Archive": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Archive(ctx, queue, 1)
		return err
	},
	"Purge": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Purge(ctx, queue)
		return err
	},
	"Metrics": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Metrics(ctx, queue)
		return err
	},
	"EstimateMetrics": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.EstimateMetrics(ctx, queue)
		return err
	},
	"BindTopic": func(ctx context.Context, c *pgmq.Client, queue string) error { return c.BindTopic(ctx, "a.*", queue) },
	"UnbindTopic": func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.UnbindTopic(ctx, "a.*", queue)
		return err
	},
	"EnableNotify": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.EnableNotify(ctx, queue, time.Second)
	},
	"EnableNotify, always": func(ctx context.Context, c *pgmq.Client, queue string) error { return c.EnableNotify(ctx, queue, 0) },
	"UpdateNotify": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.UpdateNotify(ctx, queue, time.Second)
	},
	"DisableNotify": func(ctx context.Context, c *pgmq.Client, queue string) error { return c.DisableNotify(ctx, queue) },
	"IndexGroups":   func(ctx context.Context, c *pgmq.Client, queue string) error { return c.IndexGroups(ctx, queue) },
	"DetachArchive": func(ctx context.Context, c *pgmq.Client, queue string) error { return c.DetachArchive(ctx, queue) },
	"ConvertArchive": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.ConvertArchive(ctx, queue, pgmq.Messages(10), pgmq.Messages(100), 2)
	},
	"ConvertArchive, default": func(ctx context.Context, c *pgmq.Client, queue string) error {
		return c.ConvertArchive(ctx, queue, pgmq.Span(24*time.Hour), pgmq.Span(48*time.Hour), 0)
	},
}

func reading(opts ...pgmq.ReadOption) func(ctx context.Context, c *pgmq.Client, queue string) error {
	return func(ctx context.Context, c *pgmq.Client, queue string) error {
		_, err := c.Read(ctx, queue, time.Second, opts...)
		return err
	}
}

// fillQueue creates a queue that notifies, with two messages in it.
func fillQueue(t testing.TB, c *pgmq.Client, queue string) {
	t.Helper()
	newQueue(t, c, queue, `{"n": 1}`, `{"n": 2}`)
	if err := c.EnableNotify(t.Context(), queue, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// newQueue creates a queue with messages.
func newQueue(t testing.TB, c *pgmq.Client, queue string, bodies ...string) {
	t.Helper()
	if err := c.CreateQueue(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	msgs := make([]pgmq.Outgoing, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = []byte(body)
	}
	if _, err := c.SendBatch(t.Context(), queue, msgs); err != nil {
		t.Fatal(err)
	}
}

// names are the keys of a table of calls, sorted.
func names[T any](table map[string]T) []string { return slices.Sorted(maps.Keys(table)) }
