package main

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
)

// defaultSchema stores random bytes, which are not JSON.
func defaultSchema(batch int) sql.DefaultPostgreSQLSchema {
	return sql.DefaultPostgreSQLSchema{
		SubscribeBatchSize:  batch,
		GeneratePayloadType: func(string) string { return "BYTEA" },
	}
}

func queueSchema(batch int) sql.PostgreSQLQueueSchema {
	return sql.PostgreSQLQueueSchema{
		SubscribeBatchSize:  batch,
		GeneratePayloadType: func(string) string { return "BYTEA" },
	}
}

func publisherSQL(db *pgxpool.Pool, queue bool) (message.Publisher, error) {
	cfg := sql.PublisherConfig{SchemaAdapter: defaultSchema(0), AutoInitializeSchema: true}
	if queue {
		cfg.SchemaAdapter = queueSchema(0)
	}
	return sql.NewPublisher(sql.BeginnerFromPgx(db), cfg, watermill.NopLogger{})
}

func publishSQL(goroutines int) func(context.Context, *pgxpool.Pool, int) (time.Duration, error) {
	return func(_ context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
		publisher, err := publisherSQL(db, false)
		if err != nil {
			return 0, err
		}
		if err := fill(publisher, 1); err != nil { // makes the tables
			return 0, err
		}
		took, err := publishAll(publisher, goroutines, n)
		if err != nil {
			return 0, err
		}
		return took, publisher.Close()
	}
}

func subscribeSQL(queue bool, batch int) func(context.Context, *pgxpool.Pool, int) (time.Duration, error) {
	return func(ctx context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
		publisher, err := publisherSQL(db, queue)
		if err != nil {
			return 0, err
		}
		cfg := sql.SubscriberConfig{
			SchemaAdapter:    defaultSchema(batch),
			OffsetsAdapter:   sql.DefaultPostgreSQLOffsetsAdapter{},
			InitializeSchema: true,
		}
		if queue {
			cfg.SchemaAdapter = queueSchema(batch)
			cfg.OffsetsAdapter = sql.PostgreSQLQueueOffsetsAdapter{DeleteOnAck: true}
		}
		subscriber, err := sql.NewSubscriber(sql.BeginnerFromPgx(db), cfg, watermill.NopLogger{})
		if err != nil {
			return 0, err
		}
		if err := subscriber.SubscribeInitialize(topic); err != nil {
			return 0, err
		}
		if err := fill(publisher, n); err != nil {
			return 0, err
		}
		return consumeAll(ctx, subscriber, n)
	}
}
