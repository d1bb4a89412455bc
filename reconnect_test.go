package watermillpgmq_test

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
)

// notingTime is far more than a goroutine takes from the end of Publish to noting what it has published.
const notingTime = 100 * time.Millisecond

// noting makes up for a race in Watermill's TestReconnect: in the end it compares what was received with what
// its publishers have noted as published, which they do some time after Publish returns. A message that
// arrives earlier, as here they do, would be one too many. So none is delivered before notingTime has passed
// since then.
type noting struct {
	mu    sync.Mutex
	noted map[string]chan struct{} // by UUID; closed then
}

func (n *noting) of(msg *message.Message) chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.noted[msg.UUID] == nil {
		n.noted[msg.UUID] = make(chan struct{})
	}
	return n.noted[msg.UUID]
}

type notingPublisher struct {
	*watermillpgmq.Publisher
	*noting
}

func (p notingPublisher) Publish(topic string, messages ...*message.Message) error {
	err := p.Publisher.Publish(topic, messages...)
	if err == nil {
		for _, msg := range messages {
			time.AfterFunc(notingTime, func() { close(p.of(msg)) })
		}
	}
	return err
}

type notingSubscriber struct {
	*watermillpgmq.Subscriber
	*noting
}

func (s notingSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := s.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for msg := range in {
			select {
			case <-s.of(msg):
			case <-msg.Context().Done():
			}
			select {
			case out <- msg:
			case <-msg.Context().Done():
			}
		}
	}()
	return out, nil
}
