package pgmq

import "log/slog"

// Option changes a client of New, NewStd or Connect. The clients of InTx have those of their parent.
type Option interface{ applyClient(c *Client) }

// WithLogger logs every statement at level Debug: the operation, its queue, the ids or how many rows,
// how long it took, and its error. Message bodies are not logged. The default, and a nil logger, is
// silence, which costs nothing.
func WithLogger(log *slog.Logger) Option { return withLogger{log} }

type withLogger struct{ log *slog.Logger }

func (w withLogger) applyClient(c *Client) { c.log = w.log }

func (c *Client) with(opts []Option) *Client {
	for _, opt := range opts {
		opt.applyClient(c)
	}
	return c
}
