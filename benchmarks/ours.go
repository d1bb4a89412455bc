package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/jackc/pgx/v5/pgxpool"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

func openOurs(db *pgxpool.Pool) (*watermillpgmq.Publisher, *watermillpgmq.Subscriber, error) {
	publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, nil, err
	}
	subscriber, err := watermillpgmq.NewSubscriber(db, watermillpgmq.SubscriberConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, nil, err
	}
	return publisher, subscriber, subscriber.SubscribeInitialize(topic)
}

func publishOurs(goroutines int) func(context.Context, *pgxpool.Pool, int) (time.Duration, error) {
	return func(_ context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
		publisher, _, err := openOurs(db)
		if err != nil {
			return 0, err
		}
		took, err := publishAll(publisher, goroutines, n)
		if err != nil {
			return 0, err
		}
		if err := expectLength(db, n); err != nil {
			return 0, err
		}
		return took, publisher.Close()
	}
}

func subscribeOurs(ctx context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
	publisher, subscriber, err := openOurs(db)
	if err != nil {
		return 0, err
	}
	if err := fill(publisher, n); err != nil {
		return 0, err
	}
	took, err := consumeAll(ctx, subscriber, n)
	if err != nil {
		return 0, err
	}
	return took, expectLength(db, 0)
}

// expectLength checks that nothing was lost or doubled.
func expectLength(db *pgxpool.Pool, n int) error {
	m, err := pgmq.New(db).Metrics(context.Background(), watermillpgmq.QueueName(topic, ""))
	if err == nil && m.Length != int64(n) {
		err = fmt.Errorf("%d messages in the queue, expected %d", m.Length, n)
	}
	return err
}
