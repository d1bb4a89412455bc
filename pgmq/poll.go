package pgmq

import (
	"context"
	"math"
	"time"
)

// Poll makes Read wait up to wait for a first message, and look again every so often, which must not be
// below a millisecond. It holds neither a connection of a pool nor a transaction while it waits. With
// WokenBy it also looks as soon as a message is announced.
//
// In a transaction that is repeatable read or stricter, what is sent after its beginning is not seen.
func Poll(wait, every time.Duration) ReadOption { return readPoll{wait: wait, every: every} }

// WokenBy makes a Read that polls look whenever the Listener hears of the queue. One Listener serves any
// number of them, over its one connection; a Read with a connection of its own to listen on would open
// one each time. Nil is none.
func WokenBy(l *Listener) ReadOption { return readWoken{l} }

// ServerPoll is Poll by the server, rounded up to whole seconds and milliseconds
// (pgmq.read_with_poll, and those of the grouped reads). It holds the connection and a transaction for
// the whole wait, which keeps vacuum from cleaning up; since PGMQ 1.12 the wait eats into vt, too. It is
// here for those who need one statement. A wait of 0 does not poll.
func ServerPoll(wait, every time.Duration) ReadOption {
	return readPoll{wait: wait, every: every, server: true}
}

type (
	readPoll  poll
	readWoken struct{ listener *Listener }
)

func (p readPoll) applyRead(o *readOptions) {
	other := o.poll
	o.poll = poll(p)
	o.poll.listener = other.listener
	o.poll.both = other.both || other.set && other.server != p.server
	o.poll.set = true
}

func (w readWoken) applyRead(o *readOptions) { o.poll.listener = w.listener }

// poll is how a Read waits; the zero value does not.
type poll struct {
	set         bool // by an option
	wait, every time.Duration
	server      bool
	both        bool // by the client and by the server, which cannot be
	listener    *Listener
}

func (p poll) validate() error {
	switch {
	case p.both:
		return &ValueError{Name: "poll", Value: "Poll and ServerPoll", Rule: "one of both"}
	case p.listener != nil && (!p.set || p.server):
		return &ValueError{Name: "WokenBy", Value: "given", Rule: "together with Poll"}
	case !p.set:
		return nil
	case p.wait < 0:
		return &ValueError{Name: "wait", Value: p.wait, Rule: "zero or more"}
	case p.every < time.Millisecond:
		return &ValueError{Name: "every", Value: p.every, Rule: "at least 1ms"}
	case p.server && roundUp(p.wait, time.Second) > math.MaxInt32:
		return &ValueError{Name: "wait", Value: p.wait, Rule: "at most 2147483647 seconds"}
	case p.server && roundUp(p.every, time.Millisecond) > math.MaxInt32:
		return &ValueError{Name: "every", Value: p.every, Rule: "at most 2147483647 milliseconds"}
	}
	return nil
}

// onServer says whether the server is to wait. PGMQ does not even look where there is no time to wait.
func (p poll) onServer() bool { return p.server && p.wait > 0 }

// until reads once, or until there is something to return; the last time is when the wait is over.
func (p poll) until(ctx context.Context, queue string, read func() ([]Message, error)) ([]Message, error) {
	if p.server || p.wait == 0 {
		return read()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var woken <-chan struct{}
	if p.listener != nil {
		var err error
		if woken, err = p.listener.Listen(ctx, queue); err != nil {
			return nil, err
		}
	}
	over := time.NewTimer(p.wait)
	defer over.Stop()
	look := time.NewTicker(p.every)
	defer look.Stop()
	for last := false; ; {
		msgs, err := read()
		if err != nil || len(msgs) > 0 || last {
			return msgs, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-over.C:
			last = true
		case <-look.C:
		case <-woken:
		}
	}
}
