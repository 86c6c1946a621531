;; What all ACL probes have in common: every text compiles, no rule expires, no parameter matters.
(import "[export]leasehold:acl/evaluator@0.1.0" "[resource-new]policy-set" (func $new (param i32) (result i32)))
(memory (export "memory") 4)
(global $next (mut i32) (i32.const 8192))
(func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  ;; Nothing is ever kept: calls start again where memory is free.
  (if (i32.gt_u (global.get $next) (i32.const 131072)) (then (global.set $next (i32.const 8192))))
  (local.set $at
    (i32.and
      (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
  (global.set $next (i32.add (local.get $at) (local.get $size)))
  (local.get $at))
(func (export "leasehold:acl/evaluator@0.1.0#[dtor]policy-set") (param i32))

;; result<policy-set, …> at 64
(func (export "leasehold:acl/evaluator@0.1.0#[static]policy-set.compile") (param i32 i32 i32 i32 i64) (result i32)
  (i32.store (i32.const 68) (call $new (i32.const 7)))
  (i32.const 64))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.valid-until") (param i32) (result i32) (i32.const 128))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.watched-parameters") (param i32) (result i32)
  (i32.const 128))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.template-names") (param i32) (result i32)
  (i32.const 128))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.capabilities") (param i32 i32 i32) (result i32)
  (i32.const 2))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.grants-below") (param i32 i32 i32) (result i32)
  (i32.const 1))
(func (export "leasehold:acl/evaluator@0.1.0#lint") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 128))

;; A verdict at 256 that grants: allowed, capabilities at 258 (2 is `read`), reason at 260 (0 granted, 2 denied),
;; one rule at 272, no limit at 280, no control group at 288.
(data (i32.const 256) "\01\00\02\00" "\00\00\00\00\00\00\00\00\00\00\00\00" "\40\01\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00")
(data (i32.const 304) "probe")
(data (i32.const 320) "\30\01\00\00\05\00\00\00" "\30\01\00\00\05\00\00\00" "\01\00\00\00\01\00\00\00")
;; A verdict at 512 that denies.
(data (i32.const 512) "\00\00\00\01" "\02\00\00\00\00\00\00\00\00\00\00\00" "\40\01\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00")
