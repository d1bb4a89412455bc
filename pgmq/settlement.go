package pgmq

import (
	"context"
	"slices"
	"time"
)

// settlement is what happens to a message whose lease ends.
type settlement struct {
	kind  settlementKind
	delay time.Duration // of a nack
}

type settlementKind int

const (
	acked settlementKind = iota
	nacked
	released
)

// settlements are the leases to settle, by kind.
type settlements struct {
	acked, nacked, released []*Lease
}

func (s *settlements) add(l *Lease, how settlement) {
	switch how.kind {
	case acked:
		s.acked = append(s.acked, l)
	case nacked:
		l.delay = how.delay
		s.nacked = append(s.nacked, l)
	case released:
		s.released = append(s.released, l)
	}
}

// empty says that there is nothing to do.
func (s *settlements) empty() bool { return len(s.acked)+len(s.nacked)+len(s.released) == 0 }

// settle is what Ack, Nack and Release of a handed out lease come to.
func (r *Reader) settle(l *Lease, how settlement) {
	r.mu.Lock()
	if l.settled {
		r.mu.Unlock()
		return
	}
	if _, held := r.out[l]; held {
		delete(r.out, l)
		r.request(l, how)
		if how.kind != released {
			r.pace.settled()
		}
	}
	if r.shelf.size() > 0 {
		signal(r.ready)
	}
	signal(r.room)
	if len(r.out) == 0 {
		signal(r.idle)
	}
	r.mu.Unlock()
	l.cancel(nil)
}

// request asks for a settlement. The caller holds mu.
func (r *Reader) request(l *Lease, how settlement) {
	l.settled = true
	r.settling++
	if how.kind == released {
		r.releasing++
	}
	r.unmade.add(l, how)
	signal(r.pending)
}

// settleAll is the goroutine that settles. While one batch is on its way the next one gathers, so
// that a lone message does not wait and many share a round trip.
func (r *Reader) settleAll() {
	for {
		batch := r.nextSettlements()
		if batch.empty() {
			select {
			case <-r.pending:
				continue
			case <-r.drained:
				if batch = r.nextSettlements(); batch.empty() {
					return
				}
			}
		}
		if !r.make(batch) {
			return
		}
	}
}

func (r *Reader) nextSettlements() settlements {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := r.unmade
	r.unmade = settlements{}
	return batch
}

// make carries settlements out, trying again until the database answers. It returns false when the
// reader's life ended before.
func (r *Reader) make(s settlements) bool {
	return r.insist(s.acked, acked, r.leasing.ack) &&
		r.insist(s.nacked, nacked, r.nack) &&
		r.insist(s.released, released, r.release)
}

func (r *Reader) nack(ctx context.Context, leases []*Lease) ([]int64, error) {
	ids, err := r.leasing.nack(ctx, leases)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(leases, func(l *Lease) bool { return l.delay == 0 }) {
		r.announce(ctx)
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lease := range leases {
		r.retries.add(now.Add(lease.delay))
	}
	signal(r.nacks)
	return ids, nil
}

func (r *Reader) release(ctx context.Context, leases []*Lease) ([]int64, error) {
	ids, err := r.leasing.release(ctx, leases)
	if len(ids) > 0 {
		r.announce(ctx)
	}
	return ids, err
}

// announce tells others of messages that are visible again: they may be waiting for exactly these. Where
// they are not told, they poll.
func (r *Reader) announce(ctx context.Context) {
	if err := r.leasing.client.Notify(ctx, r.leasing.queue); err != nil {
		r.log.Debug("cannot notify of messages given back", "error", err)
	}
}

func (r *Reader) insist(leases []*Lease, kind settlementKind, statement func(context.Context, []*Lease) ([]int64, error)) bool {
	if len(leases) == 0 {
		return true
	}
	sortLeases(leases)
	retry := newRetry()
	for again := false; ; again = true {
		ctx, cancel := context.WithTimeout(r.life, r.cfg.VisibilityTimeout)
		found, err := statement(ctx, leases)
		cancel()
		if err == nil || isGone(err) {
			r.made(leases, kind, found, again, err)
			return true
		}
		wait := retry.NextBackOff()
		r.log.Warn("cannot settle, trying again", "messages", len(leases), "error", err, "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.life.Done():
			timer.Stop()
			return false
		}
	}
}

// made counts leases as settled. Those that the statement did not find were lost, unless an earlier
// attempt, whose answer did not arrive, had settled them.
func (r *Reader) made(leases []*Lease, kind settlementKind, found []int64, again bool, err error) {
	if lost := len(leases) - len(found); lost > 0 && !again {
		r.log.Warn("leases were lost before they were settled: these messages are delivered again", "messages", lost, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settling -= len(leases)
	if kind == released {
		r.releasing -= len(leases)
	}
	signal(r.room)
	if r.cfg.Grouped {
		r.advance(leases, kind, found)
	}
}

// advance lets the groups of settled messages go on: with the next message behind one that is done. What
// is on the shelf behind one that will be delivered again goes back to the queue, where it waits.
func (r *Reader) advance(leases []*Lease, kind settlementKind, found []int64) {
	done := map[int64]struct{}{}
	if kind == acked {
		for _, id := range found {
			done[id] = struct{}{}
		}
	}
	for _, lease := range leases {
		if !lease.handed {
			continue
		}
		_, ok := done[lease.ID]
		for _, behind := range r.shelf.settled(lease, ok) {
			r.request(behind, settlement{kind: released})
		}
	}
	signal(r.ready)
	r.watch.wake() // there may be a new head in the queue, of which nobody is told
}
