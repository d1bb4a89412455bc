package pgmq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// The part of the table of behaviours that is about transactions and contexts.

func transactionCommits(t *testing.T, f fixture) {
	f.create(t)
	require.NoError(t, f.InTx(t.Context(), func(c *pgmq.Client) error {
		_, err := c.Send(t.Context(), f.queue, body("1"))
		return err
	}))
	require.Equal(t, []string{"1"}, f.bodies(t))
}

var errOfCaller = errors.New("the caller's own")

func transactionRollsBack(t *testing.T, f fixture) {
	f.create(t)
	for range 2 {
		err := f.InTx(t.Context(), func(c *pgmq.Client) error {
			_, err := c.Send(t.Context(), f.queue, body("1"))
			require.NoError(t, err)
			return errOfCaller
		})
		require.Equal(t, errOfCaller, err)
		require.Empty(t, f.bodies(t))
	}
}

// nestedTransactions: a failure inside undoes what was inside, and a failure around it everything.
func nestedTransactions(t *testing.T, f fixture) {
	f.create(t)
	send := func(c *pgmq.Client, text string) {
		_, err := c.Send(t.Context(), f.queue, body(text))
		require.NoError(t, err)
	}
	fail := func(c *pgmq.Client, text string) {
		require.Equal(t, errOfCaller, c.InTx(t.Context(), func(c *pgmq.Client) error {
			send(c, text)
			return errOfCaller
		}))
	}
	require.NoError(t, f.InTx(t.Context(), func(c *pgmq.Client) error {
		send(c, "1")
		fail(c, "2")
		require.NoError(t, c.InTx(t.Context(), func(c *pgmq.Client) error {
			send(c, "3")
			fail(c, "4")
			send(c, "5")
			return nil
		}))
		require.Equal(t, errOfCaller, c.InTx(t.Context(), func(c *pgmq.Client) error {
			send(c, "6")
			fail(c, "7")
			return errOfCaller
		}))
		// The server refuses something inside: it goes on outside.
		err := c.InTx(t.Context(), func(c *pgmq.Client) error {
			_, err := c.Send(t.Context(), newQueueName(), body("8"))
			return err
		})
		require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
		send(c, "9")
		return nil
	}))
	require.Equal(t, []string{"1", "3", "5", "9"}, f.bodies(t))
	require.Equal(t, errOfCaller, f.InTx(t.Context(), func(c *pgmq.Client) error {
		send(c, "10")
		fail(c, "11")
		require.NoError(t, c.InTx(t.Context(), func(c *pgmq.Client) error {
			send(c, "12")
			return nil
		}))
		return errOfCaller
	}))
	require.Equal(t, []string{"1", "3", "5", "9"}, f.bodies(t))
}

func panicRollsBack(t *testing.T, f fixture) {
	f.create(t)
	require.PanicsWithValue(t, "help", func() {
		_ = f.InTx(t.Context(), func(c *pgmq.Client) error {
			_, err := c.Send(t.Context(), f.queue, body("1"))
			require.NoError(t, err)
			panic("help")
		})
	})
	require.Empty(t, f.bodies(t))
	f.send(t, "2")
	require.Equal(t, []string{"2"}, f.bodies(t))
}

// swallowedErrorIsNoCommit: nil from fn does not mean that there is anything to commit.
func swallowedErrorIsNoCommit(t *testing.T, f fixture) {
	f.create(t)
	err := f.InTx(t.Context(), func(c *pgmq.Client) error {
		_, err := c.Send(t.Context(), f.queue, body("1"))
		require.NoError(t, err)
		_, err = c.Send(t.Context(), newQueueName(), body("2"))
		require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
		return nil
	})
	var failed *pgmq.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "transaction", failed.Op)
	require.Empty(t, f.bodies(t))
}

func endedContext(t *testing.T, f fixture) {
	f.create(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Send(ctx, f.queue, body("1"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = f.SendMany(ctx, []pgmq.Shipment{{Queue: f.queue, Messages: []pgmq.Outgoing{body("1")}}})
	require.ErrorIs(t, err, context.Canceled)
	_, err = f.Read(ctx, f.queue, 0)
	require.ErrorIs(t, err, context.Canceled)
	err = f.InTx(ctx, func(*pgmq.Client) error { return errOfCaller })
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, errOfCaller)
	require.Empty(t, f.bodies(t))
}

// endedContextInTransaction: what is around it can go on, without what was done inside.
func endedContextInTransaction(t *testing.T, f fixture) {
	f.create(t)
	for _, answer := range []error{nil, errOfCaller} {
		ctx, cancel := context.WithCancel(t.Context())
		err := f.InTx(ctx, func(c *pgmq.Client) error {
			_, err := c.Send(ctx, f.queue, body("1"))
			require.NoError(t, err)
			cancel()
			return answer
		})
		if answer == nil {
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.ErrorIs(t, err, answer)
		}
		require.Empty(t, f.bodies(t))
	}
}

// deadlineWhileWaiting: whatever the driver says when it gives up on a statement, the error is the context's.
func deadlineWhileWaiting(t *testing.T, f fixture) {
	admin := pgmq.New(f.db.Pool)
	require.NoError(t, admin.CreateQueue(t.Context(), f.queue))
	require.NoError(t, admin.InTx(t.Context(), func(other *pgmq.Client) error {
		_, err := other.Purge(t.Context(), f.queue) // locks the table
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = f.Send(ctx, f.queue, body("1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return nil
	}))
}
