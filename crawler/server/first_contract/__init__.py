"""The first contract: the four operations of the first version, which never change.

`crawler.service` takes the routes and the operations from here; `crawler.TASKS` is defined here.

    handlers      POST /submit, GET and DELETE /tasks, with their routes
    operations    what each accepts and replies, for the OpenAPI document
    live_tasks    `app["TASKS"]`, the mapping of Tasks
    records       bodies and responses
"""
