;; Exports the policy interface by name, but no function of it.
(component
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.1.0" (instance $empty)))
