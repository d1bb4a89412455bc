package watermillpgmq_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// storm publishes and consumes while something goes wrong. Whatever that is, every message whose Publish
// returned nil arrives in every group.
type storm struct {
	db       *pgxpool.Pool
	groups   []string
	messages int
	// disturbances is how often disturb is called, evenly spread over the messages.
	disturbances int
	disturb      func(t *testing.T)
	// reopen, if it is set, is after how many messages a subscriber is closed, with one un-acked, and
	// followed by the next.
	reopen int
}

const stormTopic = "storm"

func (s *storm) run(t *testing.T) {
	t.Helper()
	bind(t, s.db, stormTopic, s.groups...)
	book := newLedger(s.groups)
	ctx, calm := newContext(t)
	var consuming, publishing sync.WaitGroup
	for _, group := range s.groups {
		consuming.Go(func() { s.consume(ctx, t, group, book) })
	}
	publisher := newPublisher(t, s.db, watermillpgmq.PublisherConfig{})
	const publishers = 8
	for range publishers {
		publishing.Go(func() {
			for range s.messages / publishers {
				book.publish(ctx, publisher)
			}
		})
	}
	for n := range s.disturbances {
		await(t, book.reached((n+1)*s.messages*len(s.groups)/(s.disturbances+1)), "progress")
		s.disturb(t)
	}
	publishing.Wait()
	eventually(t, book.complete)
	calm()
	consuming.Wait()
	book.report(t)
}

func (s *storm) consume(ctx context.Context, t *testing.T, group string, book *ledger) {
	for ctx.Err() == nil {
		subscriber, err := watermillpgmq.NewSubscriber(s.db, watermillpgmq.SubscriberConfig{
			ConsumerGroup: group, Concurrency: 2, VisibilityTimeout: time.Second, CloseTimeout: -1,
		}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		messages, err := subscriber.Subscribe(ctx, stormTopic)
		if err == nil {
			n := 0
			for msg := range messages {
				n++
				if n == s.reopen {
					break // this one is not acked
				}
				book.handled(group, msg.UUID)
				msg.Ack()
			}
		}
		// An error of Close is one of the things that go wrong.
		_ = subscriber.Close()
	}
}

// ledger keeps the books of a storm.
type ledger struct {
	mu        sync.Mutex
	accepted  map[string]struct{}
	refused   int
	seen      map[string]map[string]int // by group and UUID
	total     int
	waiting   map[int]chan struct{} // by the total to be reached
	duplicate int
}

func newLedger(groups []string) *ledger {
	l := &ledger{accepted: map[string]struct{}{}, seen: map[string]map[string]int{}, waiting: map[int]chan struct{}{}}
	for _, group := range groups {
		l.seen[group] = map[string]int{}
	}
	return l
}

// publish tries until it works, each time with the same message, and notes it then.
func (l *ledger) publish(ctx context.Context, publisher message.Publisher) {
	msg := newMessage(`{"amount": 5}`)
	for ctx.Err() == nil {
		limit, cancel := context.WithTimeout(ctx, time.Second)
		msg.SetContext(limit)
		err := publisher.Publish(stormTopic, msg)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.accepted[msg.UUID] = struct{}{}
			l.mu.Unlock()
			return
		}
		l.refused++
		l.mu.Unlock()
		select { // as long as nobody answers there is no use in asking all the time
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (l *ledger) handled(group, uuid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[group][uuid]++
	if l.seen[group][uuid] > 1 {
		l.duplicate++
		return
	}
	l.total++
	for total, waiting := range l.waiting {
		if l.total >= total {
			close(waiting)
			delete(l.waiting, total)
		}
	}
}

// reached is closed when so many messages were handled in all groups together.
func (l *ledger) reached(total int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	if l.total >= total {
		close(c)
	} else {
		l.waiting[total] = c
	}
	return c
}

// complete says what is missing in which group.
func (l *ledger) complete() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var missing []error
	for _, group := range slices.Sorted(maps.Keys(l.seen)) {
		n := 0
		for uuid := range l.accepted {
			if l.seen[group][uuid] == 0 {
				n++
			}
		}
		if n > 0 {
			missing = append(missing, fmt.Errorf("group %s misses %d of %d messages", group, n, len(l.accepted)))
		}
	}
	return errors.Join(missing...)
}

func (l *ledger) report(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d messages to %d groups: %d Publish calls failed, %d deliveries were repeated", len(l.accepted), len(l.seen), l.refused, l.duplicate)
}

func TestNothingIsLost_WhenSubscribersComeAndGo(t *testing.T) {
	t.Parallel()
	s := &storm{db: pgmqtest.New(t).Pool, groups: []string{"billing", "shipping", "audit"}, messages: 2000, reopen: 150}
	s.run(t)
}

// Every connection of the database is terminated, again and again.
func TestNothingIsLost_WhenConnectionsAreTerminated(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	s := &storm{db: db, groups: []string{"billing", "shipping"}, messages: 2000, disturbances: 8}
	s.disturb = func(t *testing.T) {
		t.Helper()
		eventually(t, func() error { // the pool may hand out a connection that was terminated before
			_, err := db.Exec(t.Context(), `
				select pg_terminate_backend(pid)
				from pg_catalog.pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid()`)
			return err
		})
	}
	s.run(t)
}

// The network breaks connections, and goes silent for longer than anybody waits.
func TestNothingIsLost_WhenTheNetworkFails(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	pool, network := throughProxy(t, db)
	s := &storm{db: pool, groups: []string{"billing", "shipping"}, messages: 2000, disturbances: 6}
	n := 0
	s.disturb = func(t *testing.T) {
		t.Helper()
		n++
		if n%3 > 0 {
			network.cut()
			return
		}
		network.stall()
		defer network.heal()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		require.Error(t, pool.Ping(ctx), "it is not silent")
	}
	s.run(t)
}

// The server crashes and recovers.
func TestNothingIsLost_WhenTheServerIsKilled(t *testing.T) {
	t.Parallel()
	server := pgmqtest.StartServer(t)
	s := &storm{db: server.Database(t).Pool, groups: []string{"billing", "shipping"}, messages: 2000, disturbances: 3}
	s.disturb = func(t *testing.T) {
		t.Helper()
		require.NoError(t, server.Kill(t.Context()))
		require.NoError(t, server.Start(t.Context()))
	}
	s.run(t)
}
