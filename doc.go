// Package watermillpgmq is a Publisher and a Subscriber for Watermill (https://watermill.io) whose messages travel
// through Postgres, in the queues of PGMQ: a Postgres that is there already becomes the message broker. PGMQ itself
// may be the extension or, on any Postgres 14 or newer, the compatible schema that [pgmq.Client.Install] brings along.
//
//	if _, err := pgmq.New(db).Install(ctx); err != nil {
//		return err
//	}
//	publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{}, logger)
//	if err != nil {
//		return err
//	}
//	subscriber, err := watermillpgmq.NewSubscriber(db, watermillpgmq.SubscriberConfig{ConsumerGroup: "billing"}, logger)
//	if err != nil {
//		return err
//	}
//	messages, err := subscriber.Subscribe(ctx, "orders.*")
//
// A whole application is in examples/quickstart: go run ./examples/quickstart.
//
// # Topics and groups
//
// A topic is a PGMQ routing key. Each pair of a topic, which in Subscribe may have wildcards, and a consumer group is
// one queue: subscribers of a group share its messages, and every group gets its own copy. Publish writes all copies
// in one statement. [QueueTopology] sends straight to queues instead; see [Topology].
//
// # Guarantees
//
// Once Publish has returned nil, every group whose queue was bound by then gets the message at least once, whatever
// crashes, restarts or is closed. It gets it more than once when a process dies between doing its work and the Ack
// being committed, when it loses its lease because it or the database stood still for longer than VisibilityTimeout,
// or when a publisher tries again after an error that leaves the outcome open: [ErrOutcomeUnknown], or a connection
// lost during the commit. Handlers have to cope with a repetition; the message's UUID stays the same.
//
// All messages of one Publish call are written or none, in their order. A queue is in the order of sending, and a
// subscriber with Concurrency 1 hands its messages out in this order. There are limits: ids are given before commit,
// so a transaction that commits late puts its messages behind others that were read already; a nacked message lets
// later ones pass; and several subscribers of one group work side by side.
//
// A message that leads to no queue is an error, an [UnroutableError], unless [Unroutable] says otherwise.
//
// With [WithTx], messages are published in a transaction of yours: they appear when it commits, and never if it rolls
// back. No connection and no transaction is held while a handler runs.
//
// # Payloads
//
// Payloads that are JSON are stored as jsonb, to be read by SQL and by any other PGMQ client. They come back equal in
// value, not byte for byte; [ExactMarshaler] keeps the bytes. Payloads that are not JSON always come back exactly.
package watermillpgmq
