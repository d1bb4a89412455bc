// Package pgmq is a client for PGMQ, message queues in a Postgres database. It works with the PGMQ
// extension from 1.5 to 1.13 and with a schema of its own, which Client.Install puts into any Postgres
// from 14 on where the extension cannot be had.
//
//	pool, err := pgxpool.New(ctx, dsn)
//	...
//	client := pgmq.New(pool)
//	_, err = client.Install(ctx)
//	err = client.CreateQueue(ctx, "orders")
//	id, err := client.Send(ctx, "orders", pgmq.Outgoing{Body: []byte(`{"item": "lamp"}`)})
//	msgs, err := client.Read(ctx, "orders", 30*time.Second, pgmq.Limit(10))
//	done, err := client.Delete(ctx, "orders", msgs[0].ID)
//
// A message that was read is hidden from others for a while, the visibility timeout, and comes back unless
// it was deleted or archived by then. So each message is handled at least once.
//
// A Client uses the handle it is given, whatever that is: with New(tx) everything happens in the
// transaction tx. Client.InTx begins one.
//
// A worker that handles one message after the other wants a Reader (Client.NewReader): it fetches in
// batches, keeps messages hidden for as long as they are being handled, and settles them in batches.
//
// # Functions of PGMQ and their methods
//
// Method of Client, option or function, for each function of PGMQ. Those with a version need it; the
// others are in every PGMQ that is supported. A method whose function the server lacks returns an
// *UnsupportedError, which names both.
//
//	create, create_non_partitioned    CreateQueue
//	create_unlogged                   CreateQueue with Unlogged
//	create_partitioned                CreateQueue with Partitioned (premake: 1.13)
//	convert_archive_partitioned       ConvertArchive
//	drop_queue                        DropQueue
//	detach_archive                    DetachArchive
//	purge_queue                       Purge
//	list_queues                       Queues
//	validate_queue_name               ValidateQueueName, without a server
//	metrics                           Metrics; EstimateMetrics in our schema
//	metrics_all                       MetricsAll
//	send                              Send, with VisibleIn or VisibleAt
//	send_batch                        SendBatch, SendMany
//	send_topic, send_batch_topic      SendTopic, SendBatchTopic, SendMany (1.11)
//	bind_topic                        BindTopic (1.11)
//	unbind_topic                      UnbindTopic (1.11)
//	list_topic_bindings               Bindings (1.11)
//	test_routing                      Routes (1.11)
//	validate_routing_key              ValidateRoutingKey, without a server
//	validate_topic_pattern            ValidateTopicPattern, without a server
//	read                              Read, with Limit, Where, Poll
//	read_with_poll                    Read with ServerPoll
//	read_grouped                      Read with Grouped(Fill) (1.9)
//	read_grouped_rr                   Read with Grouped(RoundRobin) (1.9)
//	read_grouped_head                 Read with Grouped(Head) (1.11.1)
//	read_grouped_with_poll            Read with Grouped(Fill) and ServerPoll (1.9)
//	read_grouped_rr_with_poll         Read with Grouped(RoundRobin) and ServerPoll (1.9)
//	read_grouped_head_with_poll       Read with Grouped(Head) and ServerPoll (1.12)
//	create_fifo_index                 IndexGroups of named queues (1.9)
//	create_fifo_indexes_all           IndexGroups of all queues (1.9)
//	pop                               Pop (more than one message: 1.7)
//	set_vt                            SetVisibility (before 1.10 in whole seconds)
//	delete                            Delete
//	archive                           Archive
//	enable_notify_insert              EnableNotify (1.7, with a throttle 1.8)
//	update_notify_insert              UpdateNotify (1.11)
//	disable_notify_insert             DisableNotify (1.7)
//	list_notify_insert_throttles      NotifyThrottles (1.11)
//	format_table_name, acquire_queue_lock, notify_queue_listeners
//	                                  none: PGMQ uses them itself
//
// # Errors
//
// Every error of a Client is an *Error with the operation and the queue. errors.Is finds out what is wrong:
// ErrQueueNotFound, ErrInvalidQueueName, ErrInvalidTopic, ErrUnsupported, ErrPermissionDenied,
// ErrNotInstalled and others. Values that PGMQ could not take are refused before anything is sent, by a
// *ValueError or a *NameError. Ids that a queue does not have are no error: Delete, Archive and
// SetVisibility return what was there.
package pgmq
