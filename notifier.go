package watermillpgmq

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

const (
	// notifyEvery is the shortest time between two notifications for one destination. A commit with a
	// notification takes a lock that all of the server's databases share, so they must be few.
	notifyEvery = 10 * time.Millisecond
	// notifyTimeout bounds a notification that is sent on its own.
	notifyTimeout = 5 * time.Second
	// notifyMost bounds what is remembered of destinations.
	notifyMost = 1000
)

// notifier throttles notifications. The first message of a burst is announced in the transaction that
// sends it, so that an idle subscriber wakes at once; what follows within notifyEvery is announced
// once, at the end of that time. If this process dies before, subscribers find it by polling.
type notifier struct {
	client *pgmq.Client
	logger watermill.LoggerAdapter

	mu    sync.Mutex
	last  map[destinationKey]time.Time
	owed  map[string]struct{} // queues with messages that were not announced
	timer *time.Timer         // nil: nothing is owed
	sends sync.WaitGroup
}

type destinationKey struct{ queue, routingKey string }

func newNotifier(client *pgmq.Client, logger watermill.LoggerAdapter) *notifier {
	return &notifier{
		client: client,
		logger: logger,
		last:   map[destinationKey]time.Time{},
		owed:   map[string]struct{}{},
	}
}

// now says whether messages for a destination are to be announced by their own transaction.
func (n *notifier) now(queue, routingKey string) bool {
	key, now := destinationKey{queue, routingKey}, time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if last, ok := n.last[key]; ok && now.Sub(last) < notifyEvery {
		return false
	}
	if len(n.last) >= notifyMost {
		for other, last := range n.last {
			if now.Sub(last) >= notifyEvery {
				delete(n.last, other)
			}
		}
	}
	n.last[key] = now
	return true
}

// later announces queues soon whose messages were committed silently.
func (n *notifier) later(queues []string) {
	if len(queues) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, queue := range queues {
		n.owed[queue] = struct{}{}
	}
	if n.timer == nil {
		n.sends.Add(1)
		n.timer = time.AfterFunc(notifyEvery, n.pay)
	}
}

// pay sends what is owed.
func (n *notifier) pay() {
	defer n.sends.Done()
	n.mu.Lock()
	queues := make([]string, 0, len(n.owed))
	for queue := range n.owed {
		queues = append(queues, queue)
	}
	clear(n.owed)
	n.timer = nil
	n.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
	defer cancel()
	if err := n.client.Notify(ctx, queues...); err != nil {
		n.logger.Debug("Cannot notify; subscribers will poll", watermill.LogFields{"queues": queues, "err": err.Error()})
	}
}

// close waits until everything owed is sent. Nothing may be owed afterwards.
func (n *notifier) close() {
	n.sends.Wait()
}
