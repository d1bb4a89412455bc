package main

import (
	"context"
	"encoding/base64"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
)

// sendRaw is what bare pgx does with send_topic (size 1) or send_batch_topic, over a number of connections.
func sendRaw(size, connections int) func(context.Context, *pgxpool.Pool, int) (time.Duration, error) {
	return func(ctx context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
		if _, _, err := openOurs(db); err != nil {
			return 0, err
		}
		body := `"` + base64.StdEncoding.EncodeToString(payload()) + `"`
		headers := `{"_watermill_message_uuid": "0123456789abcdefghijkl", "_watermill_payload_encoding": "base64"}`
		bodies, all := make([]string, size), make([]string, size)
		for i := range bodies {
			bodies[i], all[i] = body, headers
		}
		send := func(conn *pgxpool.Conn) error {
			var sent int
			if size == 1 {
				return conn.QueryRow(ctx, `select pgmq.send_topic($1::text, $2::text::jsonb, $3::text::jsonb, 0)`,
					topic, body, headers).Scan(&sent)
			}
			return conn.QueryRow(ctx, `select count(*) from pgmq.send_batch_topic($1::text, $2::text[]::jsonb[], $3::text[]::jsonb[])`,
				topic, bodies, all).Scan(&sent)
		}
		return onConnections(ctx, db, connections, n/size, send)
	}
}

// readRaw is what bare pgx does with read and delete on one connection.
func readRaw(size int) func(context.Context, *pgxpool.Pool, int) (time.Duration, error) {
	return func(ctx context.Context, db *pgxpool.Pool, n int) (time.Duration, error) {
		publisher, _, err := openOurs(db)
		if err != nil {
			return 0, err
		}
		if err := fill(publisher, n); err != nil {
			return 0, err
		}
		queue := watermillpgmq.QueueName(topic, "")
		took, err := onConnections(ctx, db, 1, (n+size-1)/size, func(conn *pgxpool.Conn) error {
			rows, err := conn.Query(ctx, `select msg_id, message, headers from pgmq.read($1::text, 30, $2::int)`, queue, size)
			if err != nil {
				return err
			}
			ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (int64, error) {
				var (
					id            int64
					body, headers []byte
				)
				err := row.Scan(&id, &body, &headers)
				return id, err
			})
			if err != nil {
				return err
			}
			rows, err = conn.Query(ctx, `select d from pgmq.delete($1::text, $2::bigint[]) as d`, queue, ids)
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			return err
		})
		if err != nil {
			return 0, err
		}
		return took, expectLength(db, 0)
	}
}

func onConnections(ctx context.Context, db *pgxpool.Pool, connections, calls int, f func(*pgxpool.Conn) error) (time.Duration, error) {
	var (
		left   atomic.Int64
		joined sync.WaitGroup
		failed = make(chan error, connections)
	)
	left.Store(int64(calls))
	start := time.Now()
	for range connections {
		joined.Go(func() {
			failed <- db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
				for left.Add(-1) >= 0 {
					if err := f(conn); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	joined.Wait()
	took := time.Since(start)
	close(failed)
	for err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}
