package pgmq

import (
	"context"
	"errors"
	"slices"
	"time"
)

// take is the goroutine that keeps the buffer filled: as many messages as will be settled in about a
// second, fetched in batches while others are being handled.
func (r *Reader) take() {
	defer r.giveBack(0)
	retry := newRetry()
	for {
		n := r.wanted()
		if n == 0 {
			if !r.await(r.room, nil) {
				return
			}
			continue
		}
		select {
		case <-r.stop:
			return
		default:
		}

		// Whatever was announced before this read began is seen by it, and whatever comes later
		// leaves a new wake-up behind. A way around the groups that has begun already does not see
		// everything any more.
		if !r.grouping.circling {
			r.watch.forget()
		}
		drained, err := r.takeBatch(n)
		if err != nil {
			if isGone(err) {
				signal(r.unindexed) // a queue that is created again has no index
			}
			wait := retry.NextBackOff()
			r.log.Warn("cannot read, trying again", "error", err, "retry_in", wait)
			timer := time.NewTimer(wait)
			ok := r.await(nil, timer.C)
			timer.Stop()
			if !ok {
				return
			}
			continue
		}
		retry.Reset()
		if drained && !r.awaitMessages() {
			return
		}
	}
}

// prepare is the goroutine that makes the index of a grouped reader, which goes on without it meanwhile:
// building it has to wait for transactions that write to the queue.
func (r *Reader) prepare() {
	ctx, cancel := context.WithCancel(r.life)
	defer cancel()
	r.taking.Go(func() {
		select {
		case <-r.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	retry := newRetry()
	for {
		err := r.leasing.client.PrepareGroups(ctx, r.leasing.queue)
		r.grouping.indexed.Store(err == nil)
		var again <-chan time.Time
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			retry.Reset()
		default:
			r.log.Warn("no index on the groups: reads look at every message", "error", err)
			if !errors.Is(err, ErrPermissionDenied) {
				again = time.After(retry.NextBackOff())
			}
		}
		select {
		case <-r.unindexed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// takeBatch puts up to n messages on the shelf, and says whether the queue has no more of them.
func (r *Reader) takeBatch(n int) (drained bool, err error) {
	ctx, cancel := context.WithTimeout(r.life, r.cfg.VisibilityTimeout)
	defer cancel()
	asked := time.Now()
	var leases []*Lease
	if r.cfg.Grouped {
		leases, drained, err = r.grouping.take(ctx, n)
	} else {
		leases, err = r.leasing.take(ctx, n)
		drained = len(leases) < n
	}
	if err != nil {
		return false, err
	}
	until := r.surely(asked)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cfg.Grouped {
		asked = r.grouping.began // the first groups were looked at then
	}
	r.retries.passed(asked)
	for _, lease := range leases {
		lease.reader, lease.until = r, until
		r.shelf.put(lease)
	}
	if len(leases) > 0 {
		signal(r.ready)
	}
	return drained, nil
}

// surely is until when a lease holds that was asked for at this time: the server counted from later
// on, and its clock may run a little faster.
func (r *Reader) surely(asked time.Time) time.Time {
	return asked.Add(r.cfg.VisibilityTimeout - r.cfg.VisibilityTimeout/10)
}

// wanted is how many messages to take now; 0 while enough are there.
func (r *Reader) wanted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.releasing > 0 && !r.cfg.Grouped {
		return 0 // a read now would overtake what is on its way back
	}
	free := r.cfg.Concurrency - len(r.out)
	target := free + r.pace.allowance(r.cfg.Buffer)
	// What waits behind its group is held for later, and keeps nobody from being served meanwhile.
	n := max(target-r.shelf.size(), free-r.shelf.available())
	n = min(n, r.cfg.Buffer-r.shelf.size()-len(r.out)-r.settling)
	if r.shelf.available() > 0 && n < (target+1)/2 {
		return 0 // there is something to hand out: wait until the next read is worth a round trip
	}
	return max(n, 0)
}

// await waits for a signal or a time; false means that the reader was stopped.
func (r *Reader) await(signal <-chan struct{}, at <-chan time.Time) bool {
	select {
	case <-signal:
	case <-at:
	case <-r.stop:
		return false
	}
	return true
}

// awaitMessages waits until the queue, which was just seen empty, may have messages again.
func (r *Reader) awaitMessages() bool {
	r.watch.setIdle(true)
	defer r.watch.setIdle(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var retry <-chan time.Time
		if at, ok := r.nextRetry(); ok {
			timer.Reset(time.Until(at))
			retry = timer.C
		}
		select {
		case <-r.watch.woken:
			return true
		case <-retry:
			return true
		case <-r.nacks: // it may be due before what was waited for
		case <-r.stop:
			return false
		}
	}
}

// nextRetry is when the next message that was nacked here becomes visible.
func (r *Reader) nextRetry() (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.retries) == 0 {
		return time.Time{}, false
	}
	return r.retries[0], true
}

// handOut moves the next lease from the shelf to its holder, if there is one and a holder is free.
func (r *Reader) handOut() *Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.out) < r.cfg.Concurrency {
		lease := r.shelf.next()
		if lease == nil {
			return nil
		}
		lease.handed = true
		signal(r.room)
		if !time.Now().Before(lease.until) {
			// The process was paused, or the database away: somebody else may have it by now.
			r.request(lease, settlement{kind: released})
			continue
		}
		lease.open()
		r.out[lease] = struct{}{}
		if r.shelf.size() > 0 && len(r.out) < r.cfg.Concurrency {
			signal(r.ready)
		}
		return lease
	}
	return nil
}

// giveBack releases all leases on the shelf but n.
func (r *Reader) giveBack(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lease := range r.shelf.cut(n) {
		r.request(lease, settlement{kind: released})
	}
}

// pace measures how many messages are settled in a second.
type pace struct {
	last, current int
}

func (p *pace) settled() { p.current++ }

// allowance is how many messages may be held for later: the mean of this second and the one before,
// which grows with the first successes and falls to nothing when a handler hangs.
func (p *pace) allowance(most int) int { return min((p.last+p.current)/2, most) }

// roll begins the next second. A second without work says nothing about the pace.
func (p *pace) roll(busy bool) {
	if !busy {
		p.current = max(p.last, p.current)
	}
	p.last, p.current = p.current, 0
}

// instants are points in time, in order, and not too many: the latest are dropped, polling notices those.
type instants []time.Time

const mostInstants = 1024

func (all *instants) add(at time.Time) {
	i, _ := slices.BinarySearchFunc(*all, at, time.Time.Compare)
	*all = slices.Insert(*all, i, at)
	*all = (*all)[:min(len(*all), mostInstants)]
}

// passed drops what does not lie behind now.
func (all *instants) passed(now time.Time) {
	i := slices.IndexFunc(*all, now.Before)
	if i < 0 {
		i = len(*all)
	}
	*all = slices.Delete(*all, 0, i)
}
