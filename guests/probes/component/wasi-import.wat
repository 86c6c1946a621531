;; A policy module that wants to know what time it is.
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.1.0" (instance $empty)))
