package watermillpgmq

import (
	"context"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill"
)

// orNop makes a nil logger a silent one, as everywhere in Watermill.
func orNop(logger watermill.LoggerAdapter) watermill.LoggerAdapter {
	if logger == nil {
		return watermill.NopLogger{}
	}
	return logger
}

// slogFor lets package pgmq, which knows nothing of Watermill, log to a Watermill logger.
func slogFor(logger watermill.LoggerAdapter) *slog.Logger {
	return slog.New(&slogHandler{logger: logger})
}

// slogHandler is a slog.Handler. Groups are not used by pgmq, so their names are left out.
type slogHandler struct{ logger watermill.LoggerAdapter }

func (h *slogHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *slogHandler) Handle(_ context.Context, record slog.Record) error {
	fields := make(watermill.LogFields, record.NumAttrs())
	var failure error
	record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			failure = err
		}
		fields[a.Key] = a.Value.Any()
		return true
	})
	switch {
	case record.Level >= slog.LevelError:
		h.logger.Error(record.Message, failure, fields)
	case record.Level >= slog.LevelInfo:
		h.logger.Info(record.Message, fields)
	default:
		h.logger.Debug(record.Message, fields)
	}
	return nil
}

func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	fields := make(watermill.LogFields, len(attrs))
	for _, a := range attrs {
		fields[a.Key] = a.Value.Any()
	}
	return &slogHandler{logger: h.logger.With(fields)}
}

func (h *slogHandler) WithGroup(string) slog.Handler { return h }
