"""Every Celery setting that differs from its default, each with its reason."""

from kombu import Queue

from orchestrator.link import KEEPALIVE, redis_url

# The broker carries doorbells only; the commands themselves are rows in PostgreSQL.
broker_url = redis_url()
broker_connection_retry_on_startup = True  # the worker may start before Redis does
broker_connection_max_retries = None  # the default gives up after 100 tries and the worker ends
broker_channel_error_retry = True  # by default a Redis that refuses (it is full, say) ends the worker
broker_pool_acquire_timeout = 2  # the default waits for ever for a free connection

broker_transport_options = {
    "visibility_timeout": 300,  # longer than any task's hard limit, far shorter than the default hour
    "unacked_restore_interval": 5,  # look for messages of dead workers every 5 s, not every 100 s
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 30,  # a sweeper that died holding the lock blocks the others this long
    "socket_timeout": 10,  # without it a publish waits for ever on a half-open connection
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "socket_keepalive_options": KEEPALIVE,
    "health_check_interval": 10,  # finds a half-open BRPOP connection within about 20 s
    "priority_steps": [0],  # one list per queue instead of four
    "deadletter_queue": "undeliverable",  # without it an unroutable message is dropped without a word
    "client_name": "orch-celery",
}

# JSON only: pickle from a reachable Redis is remote code execution.
accept_content = ["json"]
task_serializer = "json"
event_serializer = "json"

# States live in the commands table; results would double the work in Redis.
task_ignore_result = True
result_backend = None

# A late acknowledgement redelivers the bell of a crashed worker; a drain too many is harmless. Not so for a lost
# worker: the row decides about retries, and requeueing at once would loop on a command that kills its worker.
task_acks_late = True
task_reject_on_worker_lost = False
worker_prefetch_multiplier = 1  # no hoarding
worker_cancel_long_running_tasks_on_connection_loss = True  # never two live copies

# Behind the database's own time-outs (8 s a transaction), which end a stuck drain first.
task_soft_time_limit = 20
task_time_limit = 30

# Celery's own ends the worker where a message makes no sense, and looks for a lost Redis only every 30 s.
worker_consumer = "workers.consumer:Consumer"

# A typo in a queue's name raises instead of filling a list nobody reads.
task_create_missing_queues = False
task_queues = tuple(Queue(name, routing_key=name) for name in ("commands", "upkeep", "undeliverable"))
task_default_queue = "commands"
task_routes = {
    "orchestrator.drain": {"queue": "commands"},
    "orchestrator.canary": {"queue": "commands"},
    "orchestrator.sweep": {"queue": "upkeep"},
    "orchestrator.prune": {"queue": "upkeep"},
    "orchestrator.inspect": {"queue": "upkeep"},
    "orchestrator.roll": {"queue": "upkeep"},
}

# Flower sees the fleet by its events.
worker_send_task_events = True
task_send_sent_event = True

# structlog owns the logs.
worker_hijack_root_logger = False
worker_redirect_stdouts = False

worker_proc_alive_timeout = 30  # importing takes longer than the default 4 s on a busy machine
worker_disable_rate_limits = True  # limits are the API's business

# None expires, for that takes two hosts whose clocks agree; workers.ticks sees to it that workers that come back do
# not find hours of stale ones.
beat_scheduler = "workers.ticks:Ticks"
beat_schedule = {
    "sweep": {"task": "orchestrator.sweep", "schedule": 2.0, "options": {"queue": "upkeep"}},
    "canary": {"task": "orchestrator.canary", "schedule": 10.0, "options": {"queue": "commands"}},
    "roll": {"task": "orchestrator.roll", "schedule": 10.0, "options": {"queue": "upkeep"}},
    "inspect": {"task": "orchestrator.inspect", "schedule": 60.0, "options": {"queue": "upkeep"}},
    "prune": {"task": "orchestrator.prune", "schedule": 3600.0, "options": {"queue": "upkeep"}},
}
