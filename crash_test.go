package watermillpgmq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// An application is a process of its own: this test binary, with the name of one of these functions in its
// environment.
const (
	applicationVariable = "WATERMILLPGMQ_TEST_APPLICATION"
	databaseVariable    = "WATERMILLPGMQ_TEST_DATABASE"
)

var applications = map[string]func(context.Context, *pgxpool.Pool) error{
	"consumer": consumer,
	"hesitant": hesitant,
}

func runApplication(name string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := connected(ctx, applications[name]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func connected(ctx context.Context, application func(context.Context, *pgxpool.Pool) error) error {
	pool, err := pgxpool.New(ctx, os.Getenv(databaseVariable))
	if err != nil {
		return err
	}
	defer pool.Close()
	return application(ctx, pool)
}

// consumer is a Router that prints the UUID of every message as soon as it is handled, before it is acked.
func consumer(ctx context.Context, pool *pgxpool.Pool) error {
	subscriber, err := watermillpgmq.NewSubscriber(pool, watermillpgmq.SubscriberConfig{
		Concurrency: 16, VisibilityTimeout: time.Second,
	}, nil)
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("print", "orders", subscriber, func(msg *message.Message) error {
		_, err := fmt.Fprintln(os.Stdout, msg.UUID)
		return err
	})
	return router.Run(ctx)
}

// hesitant prints the payload of a message, says when its lease is lost, and waits to be told to ack.
func hesitant(ctx context.Context, pool *pgxpool.Pool) error {
	subscriber, err := watermillpgmq.NewSubscriber(pool, watermillpgmq.SubscriberConfig{
		Concurrency: 10, VisibilityTimeout: time.Second, CloseTimeout: -1,
	}, nil)
	if err != nil {
		return err
	}
	messages, err := subscriber.Subscribe(ctx, "orders")
	if err != nil {
		return err
	}
	told := bufio.NewScanner(os.Stdin)
	for msg := range messages {
		fmt.Fprintln(os.Stdout, string(msg.Payload))
		lost := context.AfterFunc(msg.Context(), func() {
			fmt.Fprintln(os.Stdout, "lost:", errors.Is(context.Cause(msg.Context()), pgmq.ErrLeaseLost))
		})
		if !told.Scan() {
			break
		}
		lost()
		msg.Ack()
	}
	return subscriber.Close()
}

// process is an application under test.
type process struct {
	*exec.Cmd
	input  io.WriteCloser
	output *bufio.Scanner
	errors *strings.Builder
}

func start(t *testing.T, db *pgmqtest.Database, name string) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0]), errors: new(strings.Builder)}
	p.Env = append(os.Environ(), applicationVariable+"="+name, databaseVariable+"="+db.DSN)
	p.Stderr = p.errors
	var err error
	p.input, err = p.StdinPipe()
	require.NoError(t, err)
	output, err := p.StdoutPipe()
	require.NoError(t, err)
	p.output = bufio.NewScanner(output)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill() // the test has failed before it ended the process
			_ = p.Wait()
		}
	})
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	require.True(t, p.output.Scan(), "the application has ended: %s", p.errors)
	return p.output.Text()
}

// An application is killed in the middle of its work and started again: it has handled every message.
func TestCrash_OfTheApplication(t *testing.T) {
	t.Parallel()
	const total = 10_000
	db := pgmqtest.New(t)
	bind(t, db.Pool, "orders")
	publisher := newPublisher(t, db.Pool, watermillpgmq.PublisherConfig{})
	wanted := map[string]int{} // how often each message was handled
	for range total / 1000 {
		messages := newMessages(1000)
		for _, msg := range messages {
			wanted[msg.UUID] = 0
		}
		require.NoError(t, publisher.Publish("orders", messages...))
	}

	handled, duplicates := 0, 0
	note := func(uuid string) {
		n, known := wanted[uuid]
		require.True(t, known, "unknown message %q", uuid)
		if wanted[uuid] = n + 1; n == 0 {
			handled++
		} else {
			duplicates++
		}
	}
	first := start(t, db, "consumer")
	for handled < total/2 {
		note(first.line(t))
	}
	require.NoError(t, first.Process.Kill())
	for first.output.Scan() { // what it still had said
		note(first.output.Text())
	}
	require.ErrorContains(t, first.Wait(), "killed")
	afterKill, left := handled, len(rowsOf(t, db.Pool, "orders"))
	require.Less(t, handled, total, "killed too late to show anything")
	require.GreaterOrEqual(t, left, total-handled, "acked without having been handled")

	second := start(t, db, "consumer")
	for handled < total {
		note(second.line(t))
	}
	awaitRows(t, db.Pool, "orders", 0, 0)
	require.NoError(t, second.Process.Signal(syscall.SIGTERM))
	for second.output.Scan() {
		note(second.output.Text())
	}
	require.NoError(t, second.Wait(), "%s", second.errors)
	t.Logf("killed after %d messages, %d were left; %d of %d were handled twice", afterKill, left, duplicates, total)
}

// An application is paused for longer than its leases last. What it had buffered, and others have handled
// meanwhile, is not delivered when it goes on, and its late Ack changes nothing.
func TestCrash_PausedApplication(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	bind(t, db.Pool, "orders")
	publisher := newPublisher(t, db.Pool, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("orders", newMessages(10)...))
	paused := start(t, db, "hesitant")
	require.Equal(t, "1", paused.line(t))
	awaitRows(t, db.Pool, "orders", 10, 10)

	require.NoError(t, paused.Process.Signal(syscall.SIGSTOP))
	other := newSubscriber(t, db.Pool, watermillpgmq.SubscriberConfig{Concurrency: 10, PollInterval: 20 * time.Millisecond})
	messages := subscribe(t, other, "orders")
	var taken []*message.Message
	for range 10 {
		taken = append(taken, receive(t, messages))
	}
	require.NoError(t, paused.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "lost: true", paused.line(t))
	for _, msg := range taken[1:] {
		msg.Ack()
	}
	awaitRows(t, db.Pool, "orders", 1, 1)
	taken[0].Nack() // it comes back after a second, to whoever takes it first
	require.NoError(t, other.Close())

	_, err := fmt.Fprintln(paused.input, "ack") // too late
	require.NoError(t, err)
	require.Equal(t, "1", paused.line(t), "it is delivered again, and nothing else")
	_, err = fmt.Fprintln(paused.input, "ack")
	require.NoError(t, err)
	awaitRows(t, db.Pool, "orders", 0, 0)
	require.NoError(t, paused.input.Close())
	require.NoError(t, paused.Process.Signal(syscall.SIGTERM))
	require.NoError(t, paused.Wait(), "%s", paused.errors)
}
