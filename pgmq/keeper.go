package pgmq

import (
	"context"
	"time"
)

// keep is the goroutine that extends leases in time, and gives back what is held for too long without
// being handed out.
func (r *Reader) keep() {
	tick := time.NewTicker(min(time.Second, r.cfg.VisibilityTimeout/3))
	defer tick.Stop()
	second := time.Now()
	for {
		select {
		case now := <-tick.C:
			if now.Sub(second) >= time.Second {
				second = now
				r.trim()
			}
			r.extend()
			r.giveUp(time.Now())
		case <-r.drained:
			return
		}
	}
}

// trim begins a new second of the pace, and gives back the messages that exceed it: whoever is idle
// elsewhere could handle them now.
func (r *Reader) trim() {
	r.mu.Lock()
	r.pace.roll(len(r.out) > 0)
	keep := min(r.cfg.Concurrency-len(r.out), r.shelf.available()) + r.pace.allowance(r.cfg.Buffer)
	r.mu.Unlock()
	r.giveBack(keep)
}

// extend renews, in one statement, all leases that have used a third of their time.
func (r *Reader) extend() {
	old := r.oldLeases()
	if len(old) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.life, r.cfg.VisibilityTimeout/3)
	defer cancel()
	asked := time.Now()
	kept, err := r.leasing.extend(ctx, old)
	if err != nil {
		// The next tick tries again, with a third of the time left at least once.
		r.log.Warn("cannot extend leases", "messages", len(old), "error", err)
		return
	}
	for _, lease := range r.renew(old, kept, asked) {
		lease.cancel(ErrLeaseLost)
	}
}

// giveUp ends the contexts of leases that could not be extended in time: the server cannot be reached, and
// others may have their messages by now. Whether they do is decided when it can be reached again.
func (r *Reader) giveUp(now time.Time) {
	for _, lease := range r.held() {
		r.mu.Lock()
		lost := now.After(lease.until)
		r.mu.Unlock()
		if lost {
			lease.cancel(ErrLeaseLost) // nothing, if it has ended before
		}
	}
}

func (r *Reader) oldLeases() []*Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	deadline := r.surely(time.Now()).Add(-r.cfg.VisibilityTimeout / 3)
	var old []*Lease
	add := func(lease *Lease) {
		// One that is lost has no time at all any more.
		if lease.until.Before(deadline) && !lease.until.IsZero() {
			old = append(old, lease)
		}
	}
	for lease := range r.out {
		add(lease)
	}
	r.shelf.each(add)
	sortLeases(old) // rows are locked in one order, so that nobody deadlocks
	return old
}

// renew notes which leases last longer now, and returns the lost ones among those that are held. What
// was settled meanwhile is neither.
func (r *Reader) renew(asked []*Lease, kept []int64, at time.Time) (lost []*Lease) {
	ids := make(map[int64]struct{}, len(kept))
	for _, id := range kept {
		ids[id] = struct{}{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lease := range asked {
		if _, ok := ids[lease.ID]; ok {
			lease.until = r.surely(at)
			continue
		}
		lease.until = time.Time{} // one on the shelf is thrown away when its turn comes
		if _, held := r.out[lease]; held {
			r.log.Warn("lease lost: the message may be delivered elsewhere too", "msg_id", lease.ID)
			lost = append(lost, lease)
		}
	}
	return lost
}
