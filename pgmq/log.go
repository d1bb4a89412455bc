package pgmq

import (
	"context"
	"log/slog"
	"time"
)

// mostLogged is how many ids one line of the log has at most.
const mostLogged = 20

// clock is when a statement begins; zero if nobody wants to know.
func (c *Client) clock(ctx context.Context) time.Time {
	if c.log == nil || !c.log.Enabled(ctx, slog.LevelDebug) {
		return time.Time{}
	}
	return time.Now()
}

// logDone says how a statement, or a transaction, ended that began at start.
func (c *Client) logDone(ctx context.Context, op operation, start time.Time, err error, more ...slog.Attr) {
	attrs := make([]slog.Attr, 0, 4+len(more))
	attrs = append(attrs, slog.String("operation", op.name))
	if op.queue != "" {
		attrs = append(attrs, slog.String("queue", op.queue))
	}
	attrs = append(append(attrs, more...), slog.Duration("duration", time.Since(start)))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	c.log.LogAttrs(ctx, slog.LevelDebug, "pgmq", attrs...)
}

// found says what a statement came back with: how many rows, and where these are few their ids.
func found[T any](all []T) []slog.Attr {
	attrs := []slog.Attr{slog.Int("count", len(all))}
	if ids := idsOf(all); ids != nil {
		attrs = append(attrs, slog.Any("ids", ids))
	}
	return attrs
}

// idsOf is nil for rows that have no ids, and for too many.
func idsOf[T any](all []T) []int64 {
	if len(all) > mostLogged {
		return nil
	}
	var ids []int64
	switch rows := any(all).(type) {
	case []int64:
		ids = rows
	case []Message:
		for i := range rows {
			ids = append(ids, rows[i].ID)
		}
	case []Delivery:
		for i := range rows {
			ids = append(ids, rows[i].ID)
		}
	}
	return ids
}
