"""Jobs that one process at a time does for all that share a registry.

leader                runs the others while this process leads
webhooks              tells receivers that Tasks have ended
retention             deletes old Tasks
age_clock             how old Tasks are, whatever the clock does
"""
