// Quickstart is a shop on Watermill whose messages travel through Postgres. Each order is stored and published in one
// transaction. Billing and shipping are two consumer groups, and each of them gets every order; an audit listens to
// everything that happens to orders.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	// The database of DATABASE_URL, or a Postgres that is started for this program and removed at its end.
	db, stop, err := pgmqtest.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	version, err := pgmq.New(db).Install(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("PGMQ in this database: %s\n\n", version)

	s := &shop{db: db, journal: newJournal()}
	if err := s.trade(ctx); err != nil {
		return err
	}
	return s.report(ctx)
}

type shop struct {
	db        *pgxpool.Pool
	publisher message.Publisher
	journal   *journal // what every group has seen
}

// trade takes three orders, and returns when every group has handled them.
func (s *shop) trade(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	router, err := s.newRouter()
	if err != nil {
		return err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(ctx) }()
	select {
	case <-router.Running(): // every group has its queue: what is published from here on waits in it
	case err := <-stopped:
		return err
	}
	defer func() { err = errors.Join(err, router.Close(), <-stopped) }()

	_, err = s.db.Exec(ctx, `
		create table if not exists quickstart_orders (
			id bigint generated always as identity primary key,
			item text not null
		)`)
	if err != nil {
		return err
	}
	var orders []order
	for _, item := range []string{"lamp", "desk", "chair"} {
		o, err := s.place(ctx, item)
		if err != nil {
			return err
		}
		orders = append(orders, o)
	}
	return s.journal.await(ctx, orders)
}

// newRouter connects the groups with the topics. A topic may have wildcards where it is subscribed to.
func (s *shop) newRouter() (*message.Router, error) {
	logger := watermill.NopLogger{} // the shop tells its story itself
	router, err := message.NewRouter(message.RouterConfig{}, logger)
	if err != nil {
		return nil, err
	}
	s.publisher, err = watermillpgmq.NewPublisher(s.db, watermillpgmq.PublisherConfig{}, logger)
	if err != nil {
		return nil, err
	}
	subscribers := map[string]message.Subscriber{}
	for _, group := range []string{"billing", "shipping", "audit"} {
		subscribers[group], err = watermillpgmq.NewSubscriber(s.db, watermillpgmq.SubscriberConfig{
			ConsumerGroup: group,
			NackDelay:     watermillpgmq.ConstantNackDelay(200 * time.Millisecond),
		}, logger)
		if err != nil {
			return nil, err
		}
	}
	router.AddConsumerHandler("billing", "orders.placed", subscribers["billing"], s.bill)
	router.AddHandler("shipping", "orders.placed", subscribers["shipping"], "orders.shipped", s.publisher, s.ship)
	router.AddConsumerHandler("audit", "orders.#", subscribers["audit"], s.audit)
	return router, nil
}

// order is what the messages carry.
type order struct {
	ID     int64  `json:"id"`
	Item   string `json:"item"`
	Status string `json:"status"`
}

// place stores an order and publishes it in the same transaction: both happen, or neither.
func (s *shop) place(ctx context.Context, item string) (order, error) {
	o := order{Item: item, Status: "placed"}
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			insert into quickstart_orders (item)
			values ($1::text)
			returning id`, item).Scan(&o.ID)
		if err != nil {
			return err
		}
		tell("shop", o, "stored and published in one transaction")
		msg, err := newMessage(o)
		if err != nil {
			return err
		}
		msg.SetContext(watermillpgmq.WithTx(ctx, tx))
		return s.publisher.Publish("orders.placed", msg)
	})
	return o, err
}

func (s *shop) bill(msg *message.Message) error {
	var o order
	if err := json.Unmarshal(msg.Payload, &o); err != nil {
		return err
	}
	s.journal.saw("billing", o)
	return nil
}

// ship publishes what it returns. With an error, the message comes back after NackDelay; meanwhile the next ones pass.
func (s *shop) ship(msg *message.Message) ([]*message.Message, error) {
	var o order
	if err := json.Unmarshal(msg.Payload, &o); err != nil {
		return nil, err
	}
	info, _ := watermillpgmq.MessageFromContext(msg.Context())
	if o.Item == "lamp" && info.ReadCount == 1 {
		tell("shipping", o, "not shipped, trying again")
		return nil, errors.New("the carrier does not answer")
	}
	s.journal.saw("shipping", o)

	o.Status = "shipped"
	out, err := newMessage(o)
	return []*message.Message{out}, err
}

func (s *shop) audit(msg *message.Message) error {
	var o order
	if err := json.Unmarshal(msg.Payload, &o); err != nil {
		return err
	}
	s.journal.saw("audit", o)
	return nil
}

func newMessage(o order) (*message.Message, error) {
	payload, err := json.Marshal(o)
	return message.NewMessage(watermill.NewUUID(), payload), err
}
