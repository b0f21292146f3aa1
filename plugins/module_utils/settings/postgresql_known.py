# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's settings without a server, as pg_settings of 15 and 17 has them: a plan can refuse what no server would take.

A running server is asked for its own (`postgresql.problems`); this is for before there is one.
"""

from __future__ import annotations

from .postgresql import Parameter

NEWEST = 17
"""The last major version whose names and values are all known."""

INTERNAL = (
    "block_size data_checksums data_directory_mode debug_assertions huge_pages_status in_hot_standby integer_datetimes "
    "lc_collate lc_ctype max_function_args max_identifier_length max_index_keys segment_size server_encoding "
    "server_version server_version_num shared_memory_size shared_memory_size_in_huge_pages ssl_library wal_block_size "
    "wal_segment_size"
)
BOOLEANS = (
    "allow_alter_system allow_in_place_tablespaces allow_system_table_mods array_nulls autovacuum bonjour "
    "check_function_bodies data_sync_retry db_user_namespace debug_pretty_print debug_print_parse debug_print_plan "
    "debug_print_rewritten default_transaction_deferrable default_transaction_read_only enable_async_append "
    "enable_bitmapscan enable_gathermerge enable_group_by_reordering enable_hashagg enable_hashjoin "
    "enable_incremental_sort enable_indexonlyscan enable_indexscan enable_material enable_memoize enable_mergejoin "
    "enable_nestloop enable_parallel_append enable_parallel_hash enable_partition_pruning "
    "enable_partitionwise_aggregate enable_partitionwise_join enable_presorted_aggregate enable_seqscan enable_sort "
    "enable_tidscan escape_string_warning event_triggers exit_on_error fsync full_page_writes geqo "
    "gss_accept_delegation hot_standby hot_standby_feedback ignore_checksum_failure ignore_invalid_pages "
    "ignore_system_indexes jit jit_debugging_support jit_dump_bitcode jit_expressions jit_profiling_support "
    "jit_tuple_deforming krb_caseins_users lo_compat_privileges log_checkpoints log_connections log_disconnections "
    "log_duration log_executor_stats log_hostname log_lock_waits log_parser_stats log_planner_stats "
    "log_recovery_conflict_waits log_replication_commands log_statement_stats log_truncate_on_rotation "
    "logging_collector parallel_leader_participation quote_all_identifiers recovery_target_inclusive "
    "remove_temp_files_after_crash restart_after_crash row_security send_abort_for_crash send_abort_for_kill ssl "
    "ssl_passphrase_command_supports_reload ssl_prefer_server_ciphers standard_conforming_strings summarize_wal "
    "sync_replication_slots synchronize_seqscans syslog_sequence_numbers syslog_split_messages "
    "trace_connection_negotiation trace_notify trace_sort track_activities track_commit_timestamp track_counts "
    "track_io_timing track_wal_io_timing transaction_deferrable transaction_read_only transform_null_equals "
    "update_process_title wal_init_zero wal_log_hints wal_receiver_create_temp_slot wal_recycle zero_damaged_pages"
)
TEXTS = (
    "application_name datestyle timezone archive_cleanup_command archive_command archive_library backtrace_functions "
    "bonjour_name client_encoding cluster_name config_file createrole_self_grant data_directory debug_io_direct "
    "default_table_access_method default_tablespace default_text_search_config dynamic_library_path event_source "
    "extension_destdir external_pid_file hba_file ident_file jit_provider krb_server_keyfile lc_messages lc_monetary "
    "lc_numeric lc_time listen_addresses local_preload_libraries log_destination log_directory log_filename "
    "log_line_prefix log_timezone output_plugin_libraries primary_conninfo primary_slot_name promote_trigger_file "
    "recovery_end_command recovery_target recovery_target_lsn recovery_target_name recovery_target_time "
    "recovery_target_timeline recovery_target_xid restore_command restrict_nonsystem_relation_kind search_path "
    "session_preload_libraries shared_preload_libraries ssl_ca_file ssl_cert_file ssl_ciphers ssl_crl_dir ssl_crl_file "
    "ssl_dh_params_file ssl_ecdh_curve ssl_key_file ssl_passphrase_command synchronized_standby_slots "
    "synchronous_standby_names syslog_ident temp_tablespaces timezone_abbreviations unix_socket_directories "
    "unix_socket_group wal_consistency_checking"
)
# Values: names.
ENUMERATIONS = {
    ", TLSv1, TLSv1.1, TLSv1.2, TLSv1.3": "ssl_max_protocol_version ssl_min_protocol_version",
    "always, on, off": "archive_mode",
    "auto, force_generic_plan, force_custom_plan": "plan_cache_mode",
    "auto, regress, on, off": "compute_query_id",
    "base64, hex": "xmlbinary",
    "buffered, immediate": "debug_logical_replication_streaming",
    "content, document": "xmloption",
    "debug5, debug4, debug3, debug2, debug1, info, notice, warning, error, log, fatal, panic": (
        "log_min_error_statement log_min_messages"
    ),
    "debug5, debug4, debug3, debug2, debug1, log, notice, warning, error": "client_min_messages trace_recovery_messages",
    "disabled, debug5, debug4, debug3, debug2, debug1, log, notice, warning, error": "icu_validation_level",
    "error, warn, disabled": "composite_type_mismatch",
    "escape, hex": "bytea_output",
    "fsync, fdatasync, open_sync, open_datasync": "wal_sync_method",
    "fsync, syncfs": "recovery_init_sync_method",
    "local, remote_write, remote_apply, on, off": "synchronous_commit",
    "local0, local1, local2, local3, local4, local5, local6, local7": "syslog_facility",
    "md5, scram-sha-256": "password_encryption",
    "minimal, replica, logical": "wal_level",
    "none, cache, snapshot": "stats_fetch_consistency",
    "none, ddl, mod, all": "log_statement",
    "none, pl, all": "track_functions",
    "off, on, regress": "debug_parallel_query force_parallel_mode",
    "off, on, try": "huge_pages recovery_prefetch",
    "origin, replica, local": "session_replication_role",
    "partition, on, off": "constraint_exclusion",
    "pause, promote, shutdown": "recovery_target_action",
    "pglz, lz4": "default_toast_compression",
    "pglz, lz4, zstd, on, off": "wal_compression",
    "posix, sysv, mmap": "dynamic_shared_memory_type",
    "posix_fallocate, write_zeros": "file_extend_method",
    "postgres, postgres_verbose, sql_standard, iso_8601": "intervalstyle",
    "safe_encoding, on, off": "backslash_quote",
    "serializable, repeatable read, read committed, read uncommitted": "default_transaction_isolation transaction_isolation",
    "sysv, mmap": "shared_memory_type",
    "terse, default, verbose": "log_error_verbosity",
}
# Type, unit, least and greatest value: names.
NUMBERS = {
    ("integer", "", "-1", "10000"): "autovacuum_vacuum_cost_limit",
    ("integer", "", "-1", "2147483647"): "autovacuum_vacuum_insert_threshold",
    ("integer", "", "-15", "3"): "extra_float_digits",
    ("integer", "", "-2147483648", "2147483647"): "max_pred_locks_per_relation",
    ("integer", "", "0", "0"): "debug_discard_caches",
    ("integer", "", "0", "1000"): "commit_siblings effective_io_concurrency maintenance_io_concurrency",
    ("integer", "", "0", "10000"): "vacuum_cost_page_dirty vacuum_cost_page_hit vacuum_cost_page_miss",
    ("integer", "", "0", "100000"): "commit_delay",
    ("integer", "", "0", "1000000"): "vacuum_defer_cleanup_age",
    ("integer", "", "0", "1000000000"): "vacuum_freeze_min_age vacuum_multixact_freeze_min_age",
    ("integer", "", "0", "1024"): (
        "max_parallel_apply_workers_per_subscription max_parallel_maintenance_workers max_parallel_workers "
        "max_parallel_workers_per_gather"
    ),
    ("integer", "", "0", "1073741823"): "bgwriter_lru_maxpages",
    ("integer", "", "0", "2000000000"): "vacuum_freeze_table_age vacuum_multixact_freeze_table_age",
    ("integer", "", "0", "2100000000"): "vacuum_failsafe_age vacuum_multixact_failsafe_age",
    ("integer", "", "0", "2147483647"): (
        "autovacuum_analyze_threshold autovacuum_vacuum_threshold geqo_generations geqo_pool_size "
        "gin_fuzzy_search_limit max_pred_locks_per_page tcp_keepalives_count"
    ),
    ("integer", "", "0", "262143"): (
        "max_logical_replication_workers max_prepared_transactions max_replication_slots "
        "max_sync_workers_per_subscription max_wal_senders max_worker_processes reserved_connections "
        "superuser_reserved_connections"
    ),
    ("integer", "", "0", "511"): "log_file_mode unix_socket_permissions",
    ("integer", "", "1", "10"): "geqo_effort",
    ("integer", "", "1", "10000"): "default_statistics_target vacuum_cost_limit",
    ("integer", "", "1", "2147483647"): "from_collapse_limit join_collapse_limit scram_iterations",
    ("integer", "", "1", "262143"): "autovacuum_max_workers max_connections",
    ("integer", "", "1", "65535"): "port",
    ("integer", "", "10", "2147483647"): "max_locks_per_transaction max_pred_locks_per_transaction",
    ("integer", "", "10000", "2000000000"): "autovacuum_multixact_freeze_max_age",
    ("integer", "", "100000", "2000000000"): "autovacuum_freeze_max_age",
    ("integer", "", "2", "2147483647"): "geqo_threshold",
    ("integer", "", "64", "2147483647"): "max_files_per_process max_notify_queue_pages",
    ("integer", "8kB", "-1", "262143"): "wal_buffers",
    ("integer", "8kB", "0", "131072"): "commit_timestamp_buffers subtransaction_buffers transaction_buffers",
    ("integer", "8kB", "0", "2147483647"): "wal_writer_flush_after",
    ("integer", "8kB", "0", "256"): "backend_flush_after bgwriter_flush_after checkpoint_flush_after",
    ("integer", "8kB", "0", "715827882"): "min_parallel_index_scan_size min_parallel_table_scan_size",
    ("integer", "8kB", "1", "2147483647"): "effective_cache_size",
    ("integer", "8kB", "1", "32"): "io_combine_limit",
    ("integer", "8kB", "100", "1073741823"): "temp_buffers",
    ("integer", "8kB", "16", "1073741823"): "shared_buffers",
    ("integer", "8kB", "16", "131072"): "multixact_member_buffers multixact_offset_buffers notify_buffers serializable_buffers",
    ("integer", "B", "-1", "1073741823"): "log_parameter_max_length log_parameter_max_length_on_error",
    ("integer", "B", "100", "1048576"): "track_activity_query_size",
    ("integer", "B", "65536", "1073741823"): "wal_decode_buffer_size",
    ("integer", "MB", "-1", "2147483647"): "max_slot_wal_keep_size",
    ("integer", "MB", "0", "2147483647"): "min_dynamic_shared_memory wal_keep_size",
    ("integer", "MB", "2", "2147483647"): "max_wal_size min_wal_size",
    ("integer", "kB", "-1", "2147483647"): "autovacuum_work_mem log_temp_files temp_file_limit",
    ("integer", "kB", "0", "16777216"): "vacuum_buffer_usage_limit",
    ("integer", "kB", "0", "2097151"): "log_rotation_size",
    ("integer", "kB", "0", "2147483647"): "huge_page_size wal_skip_threshold",
    ("integer", "kB", "100", "2147483647"): "max_stack_depth",
    ("integer", "kB", "64", "2147483647"): "gin_pending_list_limit logical_decoding_work_mem maintenance_work_mem work_mem",
    ("integer", "min", "-1", "86400"): "old_snapshot_threshold",
    ("integer", "min", "0", "35791394"): "log_rotation_age wal_summary_keep_time",
    ("integer", "ms", "-1", "2147483647"): (
        "log_autovacuum_min_duration log_min_duration_sample log_min_duration_statement max_standby_archive_delay "
        "max_standby_streaming_delay"
    ),
    ("integer", "ms", "0", "2147483647"): (
        "client_connection_check_interval idle_in_transaction_session_timeout idle_session_timeout lock_timeout "
        "log_startup_progress_interval recovery_min_apply_delay statement_timeout tcp_user_timeout transaction_timeout "
        "wal_receiver_timeout wal_sender_timeout"
    ),
    ("integer", "ms", "1", "10000"): "wal_writer_delay",
    ("integer", "ms", "1", "2147483647"): "deadlock_timeout wal_retrieve_retry_interval",
    ("integer", "ms", "10", "10000"): "bgwriter_delay",
    ("integer", "s", "0", "1073741823"): "archive_timeout",
    ("integer", "s", "0", "2147"): "post_auth_delay",
    ("integer", "s", "0", "2147483"): "wal_receiver_status_interval",
    ("integer", "s", "0", "2147483647"): "checkpoint_warning tcp_keepalives_idle tcp_keepalives_interval",
    ("integer", "s", "0", "60"): "pre_auth_delay",
    ("integer", "s", "1", "2147483"): "autovacuum_naptime",
    ("integer", "s", "1", "600"): "authentication_timeout",
    ("integer", "s", "30", "86400"): "checkpoint_timeout",
    ("real", "", "-1", "1.79769e+308"): "jit_above_cost jit_inline_above_cost jit_optimize_above_cost",
    ("real", "", "0", "1"): (
        "checkpoint_completion_target cursor_tuple_fraction geqo_seed log_statement_sample_rate log_transaction_sample_rate"
    ),
    ("real", "", "0", "1.79769e+308"): (
        "cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost parallel_setup_cost parallel_tuple_cost random_page_cost "
        "seq_page_cost"
    ),
    ("real", "", "0", "10"): "bgwriter_lru_multiplier",
    (
        "real",
        "",
        "0",
        "100",
    ): "autovacuum_analyze_scale_factor autovacuum_vacuum_insert_scale_factor autovacuum_vacuum_scale_factor",
    ("real", "", "0.001", "1e+06"): "recursive_worktable_factor",
    ("real", "", "1", "1000"): "hash_mem_multiplier",
    ("real", "", "1.5", "2"): "geqo_selection_bias",
    ("real", "ms", "-1", "100"): "autovacuum_vacuum_cost_delay",
    ("real", "ms", "0", "100"): "vacuum_cost_delay",
}
# Names by the first version that has them (release notes of 16 to 18).
ADDED = {
    16: (
        "createrole_self_grant debug_io_direct debug_logical_replication_streaming debug_parallel_query "
        "enable_presorted_aggregate gss_accept_delegation icu_validation_level "
        "max_parallel_apply_workers_per_subscription reserved_connections scram_iterations send_abort_for_crash "
        "send_abort_for_kill vacuum_buffer_usage_limit"
    ),
    17: (
        "allow_alter_system commit_timestamp_buffers enable_group_by_reordering event_triggers huge_pages_status "
        "io_combine_limit max_notify_queue_pages multixact_member_buffers multixact_offset_buffers notify_buffers "
        "serializable_buffers subtransaction_buffers summarize_wal sync_replication_slots "
        "synchronized_standby_slots trace_connection_negotiation transaction_buffers transaction_timeout "
        "wal_summary_keep_time"
    ),
    18: "autovacuum_worker_slots io_max_concurrency io_method io_workers",
}
SINCE = {name: major for major, names in ADDED.items() for name in names.split()}


def _parameters() -> dict[str, Parameter]:
    found = {name: Parameter(name, "bool", "user") for name in BOOLEANS.split()}
    found.update({name: Parameter(name, "string", "user") for name in TEXTS.split()})
    found.update({name: Parameter(name, "string", "internal") for name in INTERNAL.split()})
    for values, names in ENUMERATIONS.items():
        found.update({name: Parameter(name, "enum", "user", enumvals=tuple(values.split(", "))) for name in names.split()})
    for (vartype, unit, low, high), names in NUMBERS.items():
        found.update({name: Parameter(name, vartype, "user", unit, low, high) for name in names.split()})
    return found


PARAMETERS = _parameters()
"""By lower-case name. Contexts are not told apart, but for what nobody can set."""
