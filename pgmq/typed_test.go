package pgmq_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

type order struct {
	ID   int64  `json:"id"`
	Item string `json:"item"`
}

func TestTypedQueue(t *testing.T) {
	t.Parallel()
	c := pgmq.New(pgmqtest.New(t).Pool)
	newQueue(t, c, "orders", `{"id": "seven"}`)
	orders := pgmq.NewTypedQueue[order](c, "orders")

	want := []order{{math.MaxInt64, "lamp"}, {2, "\"\\,{}"}, {3, ""}}
	if id, err := orders.Send(t.Context(), want[0]); err != nil || id != 2 {
		t.Errorf("send: %d, %v", id, err)
	}
	if ids, err := orders.SendBatch(t.Context(), want[1:]); err != nil || len(ids) != 2 {
		t.Errorf("send: %v, %v", ids, err)
	}
	msgs, err := orders.Read(t.Context(), time.Minute, pgmq.Limit(10))
	if err != nil || len(msgs) != 4 {
		t.Fatalf("read %v, %v", msgs, err)
	}
	var wrong *pgmq.DecodeError
	if !errors.As(msgs[0].Err, &wrong) || wrong.ID != 1 || wrong.Type != "pgmq_test.order" || (msgs[0].Value != order{}) {
		t.Errorf("read %+v", msgs[0])
	}
	for i, m := range msgs[1:] {
		if m.Err != nil || m.Value != want[i] || m.ID != int64(i+2) {
			t.Errorf("read %+v, want %+v", m, want[i])
		}
	}
	if ids, err := orders.Archive(t.Context(), 1); err != nil || len(ids) != 1 {
		t.Errorf("archive: %v, %v", ids, err)
	}
	if ids, err := orders.Delete(t.Context(), 2, 3, 4); err != nil || len(ids) != 3 {
		t.Errorf("delete: %v, %v", ids, err)
	}
	if _, err := orders.Read(t.Context(), -1); err == nil {
		t.Error("a negative visibility timeout was taken")
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	numbers := pgmq.NewTypedQueue[float64](pgmq.New(nil), "q")
	var unsupported *json.UnsupportedValueError
	var operation *pgmq.Error
	_, err := numbers.Send(t.Context(), math.NaN())
	if !errors.As(err, &unsupported) || !errors.As(err, &operation) {
		t.Errorf("send NaN: %v", err)
	}
	if _, err = numbers.SendBatch(t.Context(), []float64{1, math.Inf(1)}); !errors.As(err, &unsupported) {
		t.Errorf("send infinity: %v", err)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	if v, err := pgmq.Decode[any](pgmq.Message{Body: []byte(`null`)}); v != nil || err != nil {
		t.Errorf("null: %v, %v", v, err)
	}
	_, err := pgmq.Decode[[]string](pgmq.Message{ID: 7})
	var wrong *pgmq.DecodeError
	if !errors.As(err, &wrong) || err.Error() != "message 7 is no []string: it has no body" {
		t.Errorf("SQL NULL: %v", err)
	}
	v, err := pgmq.Decode[[]string](pgmq.Message{ID: 7, Body: []byte(`["a", 1]`)})
	if !errors.As(err, &wrong) || v != nil {
		t.Errorf("a number among strings: %v, %v", v, err)
	}
}
