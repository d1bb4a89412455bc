package pgmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Decode returns the body of a message as a T, by encoding/json. Its error is a *DecodeError. A body that
// is SQL NULL is one; JSON's null is what it is to T.
func Decode[T any](m Message) (T, error) {
	var v T
	err := errNoBody
	if m.Body != nil {
		err = json.Unmarshal(m.Body, &v)
	}
	if err != nil {
		var zero T
		return zero, &DecodeError{ID: m.ID, Type: fmt.Sprintf("%T", &v)[1:], Err: err}
	}
	return v, nil
}

// Encode returns v as a message without headers, by encoding/json.
func Encode(v any) (Outgoing, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return Outgoing{}, operation{name: "encode"}.fail(err)
	}
	return Outgoing{Body: body}, nil
}

// DecodeError says which message is not what was expected.
type DecodeError struct {
	// ID is the message's.
	ID int64
	// Type is what it was to be.
	Type string
	// Err is the error of encoding/json.
	Err error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("message %d is no %s: %v", e.ID, e.Type, e.Err)
}

// Unwrap returns the error of encoding/json.
func (e *DecodeError) Unwrap() error { return e.Err }

var errNoBody = errors.New("it has no body")

// TypedQueue is one queue whose messages are the JSON of a T:
//
//	orders := pgmq.NewTypedQueue[Order](client, "orders")
//	id, err := orders.Send(ctx, Order{Item: "lamp"})
//
// What it does not have is done through the client.
type TypedQueue[T any] struct {
	client *Client
	name   string
}

// NewTypedQueue returns a handle. It sends nothing, and does not create the queue.
func NewTypedQueue[T any](c *Client, name string) TypedQueue[T] { return TypedQueue[T]{c, name} }

// TypedMessage is a message together with what is in it.
type TypedMessage[T any] struct {
	Message
	// Value is the body, if Err is nil.
	Value T
	// Err is a *DecodeError if the body is not a T. The message was read nevertheless: archive it, or it
	// comes back.
	Err error
}

// Send is Client.Send.
func (q TypedQueue[T]) Send(ctx context.Context, v T, opts ...SendOption) (int64, error) {
	msg, err := Encode(v)
	if err != nil {
		return 0, err
	}
	return q.client.Send(ctx, q.name, msg, opts...)
}

// SendBatch is Client.SendBatch.
func (q TypedQueue[T]) SendBatch(ctx context.Context, vs []T, opts ...SendOption) ([]int64, error) {
	msgs := make([]Outgoing, len(vs))
	for i := range vs {
		var err error
		if msgs[i], err = Encode(vs[i]); err != nil {
			return nil, err
		}
	}
	return q.client.SendBatch(ctx, q.name, msgs, opts...)
}

// Read is Client.Read.
func (q TypedQueue[T]) Read(ctx context.Context, vt time.Duration, opts ...ReadOption) ([]TypedMessage[T], error) {
	msgs, err := q.client.Read(ctx, q.name, vt, opts...)
	typed := make([]TypedMessage[T], len(msgs))
	for i, m := range msgs {
		v, err := Decode[T](m)
		typed[i] = TypedMessage[T]{m, v, err}
	}
	return typed, err
}

// Delete is Client.Delete.
func (q TypedQueue[T]) Delete(ctx context.Context, ids ...int64) ([]int64, error) {
	return q.client.Delete(ctx, q.name, ids...)
}

// Archive is Client.Archive.
func (q TypedQueue[T]) Archive(ctx context.Context, ids ...int64) ([]int64, error) {
	return q.client.Archive(ctx, q.name, ids...)
}
