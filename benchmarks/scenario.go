package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

const (
	topic       = "benchmark.topic"
	messageSize = 256
)

func payload() []byte {
	p := make([]byte, messageSize)
	_, _ = rand.Read(p) // documented never to fail
	return p
}

// publishAll publishes n messages, one in each call, from several goroutines.
func publishAll(publisher message.Publisher, goroutines, n int) (time.Duration, error) {
	var (
		left   atomic.Int64
		joined sync.WaitGroup
		failed = make(chan error, goroutines)
	)
	left.Store(int64(n))
	body := payload()
	start := time.Now()
	for range goroutines {
		joined.Go(func() {
			for left.Add(-1) >= 0 {
				if err := publisher.Publish(topic, message.NewMessage(watermill.NewShortUUID(), body)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	joined.Wait()
	took := time.Since(start)
	close(failed)
	return took, <-failed
}

// fill publishes n messages quickly.
func fill(publisher message.Publisher, n int) error {
	for n > 0 {
		batch := make([]*message.Message, min(n, 500))
		for i := range batch {
			batch[i] = message.NewMessage(watermill.NewShortUUID(), payload())
		}
		if err := publisher.Publish(topic, batch...); err != nil {
			return err
		}
		n -= len(batch)
	}
	return nil
}

// consumeAll handles n messages with one Router handler. The time ends when the Router is closed, so that every
// settlement has been committed.
func consumeAll(ctx context.Context, subscriber message.Subscriber, n int) (time.Duration, error) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return 0, err
	}
	var (
		mu   sync.Mutex
		seen = make(map[string]int, n)
		all  = make(chan struct{})
	)
	router.AddConsumerHandler("count", topic, subscriber, func(msg *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		seen[msg.UUID]++
		if seen[msg.UUID] == 1 && len(seen) == n {
			close(all)
		}
		return nil
	})
	stopped := make(chan error, 1)
	start := time.Now()
	go func() { stopped <- router.Run(ctx) }()
	select {
	case <-all:
	case err := <-stopped:
		return 0, errors.Join(errors.New("router stopped early"), err)
	case <-time.After(5 * time.Minute):
		return 0, fmt.Errorf("%d of %d messages arrived", len(seen), n)
	}
	err = router.Close()
	took := time.Since(start)
	for uuid, times := range seen {
		if times > 1 {
			return 0, fmt.Errorf("message %s arrived %d times", uuid, times)
		}
	}
	return took, errors.Join(err, <-stopped)
}
